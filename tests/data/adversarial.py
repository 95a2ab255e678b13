"""A corpus of hostile responses, drawn by a fuzzer from a fixed seed: always the same ones, so that no file keeps them.

A response is an answer (floods, nestings, boxes, JSON, random characters, a right answer with accidents) inside a
frame of tags (right, nested, repeated, shuffled, missing). Lengths are spread over all orders of magnitude, and one
response in `RARE` is longer than any cap.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from tests.unit.judging import SAMPLES

SIZE = 10_000
RARE = 250
LONGEST = 30_000

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
NUMBERS = (
    "NaN",
    "-Infinity",
    "1e999",
    "-1e-999",
    "1_0",
    "0x1F",
    "１２",
    "٣",
    "1e5",
    "-0",
    "9" * 400,
    "1.5.2",
    "",
    "50",
)
MARKS = ("<", ">", "[", "]", "[[", "]]", "{", "}", "|", ",", ";", "\n", '"', "\\", "<box>", "</box>", "<ref>", "</ref>")
LETTERS = ("\ud800", "\udfff\ud800", "\x00", "\x07", "\x1b[31m", "\u202e", "\ufeff", "\u200b", "İ", "ß", "ﬁ", "é" * 3)
WORDS = ("ship", "two", "three", "left", "right", "no", "and", "not", "red", "forest", "yes", "a", "the", "airport")
BOX = ("[1, 2, 30, 40]", "{<1><2><30><40>|<90>}", '{"bbox_2d": [1, 2, 30, 40], "label": "ship"}', "[[1,2,3,4],")
PIECES = (*TAGS, *NUMBERS, *MARKS, *LETTERS, *WORDS, *BOX)


def corpus(size: int = SIZE, seed: int = 0) -> Iterator[str]:
    """The responses, one by one; the same for the same seed."""
    rng = random.Random(seed)
    for i in range(size):
        yield rng.choice(FRAMES)(rng, (_huge if i % RARE == RARE - 1 else rng.choice(ANSWERS))(rng))


def _length(rng: random.Random, longest: int = LONGEST) -> int:
    """A length of any order of magnitude."""
    return int(longest ** rng.random())


def _soup(rng: random.Random) -> str:
    return "".join(rng.choices(PIECES, k=_length(rng, 2000)))


def _flood(rng: random.Random) -> str:
    piece = "".join(rng.choices(PIECES, k=rng.randint(1, 3)))
    return piece * (_length(rng) // max(len(piece), 1))


def _nested(rng: random.Random) -> str:
    opening, closing = rng.choice(
        (("[", "]"), ("{", "}"), ('{"a":', "}"), ("<box>", "</box>"), ("<think>", "</think>"))
    )
    depth = _length(rng) // (len(opening) + len(closing))
    return opening * depth + rng.choice(PIECES) + closing * (depth - rng.randint(0, 1))


def _boxes(rng: random.Random) -> str:
    return ", ".join(f"[{', '.join(_row(rng))}]" for _ in range(_length(rng, 1500)))


def _row(rng: random.Random) -> list[str]:
    count = rng.choice((4, 4, 4, 5, 3, 0, 6))
    return [rng.choice(NUMBERS) if rng.random() < 0.05 else f"{rng.uniform(-5, 110):.1f}" for _ in range(count)]


def _json(rng: random.Random) -> str:
    values = (float("nan"), float("inf"), 10**400, None, True, "50", [1, 2], -3.5, 50)
    items = [
        {"bbox_2d": [rng.choice(values) for _ in range(rng.randint(0, 6))], "label": rng.choice(PIECES)}
        for _ in range(_length(rng, 40))
    ]
    return json.dumps(items, ensure_ascii=rng.random() < 0.5)


def _characters(rng: random.Random) -> str:
    """Random code points: control characters, any plane, lone surrogates."""
    low, high = rng.choice(((0, 0x1F), (0x20, 0x2FF), (0xD800, 0xDFFF), (0, 0x10FFFF)))
    return "".join(chr(rng.randint(low, high)) for _ in range(_length(rng, 3000)))


def _repeated(rng: random.Random) -> str:
    """A right answer again and again."""
    answer = rng.choice(list(SAMPLES.values()))[1] + rng.choice((" ", ", ", "\n"))
    return answer * (_length(rng) // len(answer) + 1)


def _accident(rng: random.Random) -> str:
    """A right answer with some characters lost, doubled or replaced by a piece."""
    characters = list(rng.choice(list(SAMPLES.values()))[1])
    for _ in range(rng.randint(1, 6)):
        i = rng.randrange(len(characters))
        characters[i] = rng.choice(("", characters[i] * 2, rng.choice(PIECES)))
    return "".join(characters)


def _huge(rng: random.Random) -> str:
    """Longer than any cap: 10^5 boxes or words, or a megabyte of one character."""
    return rng.choice(("[1,2,3,4]" * 100_000, "ship " * 100_000, "<" * 1_000_000, "9" * 1_000_000))


def _framed(rng: random.Random, answer: str) -> str:
    return f"<think>{rng.choice(PIECES[4:])}</think>{rng.choice(('', ' ', chr(10)))}<answer>{answer}</answer>"


def _bare(rng: random.Random, answer: str) -> str:
    return answer


def _torn(rng: random.Random, answer: str) -> str:
    """Tags in any order and number."""
    tags = rng.choices(TAGS, k=rng.randint(0, 8))
    return answer.join(tags) if len(answer) * len(tags) < LONGEST else "".join(tags) + answer


def _inside_itself(rng: random.Random, answer: str) -> str:
    return _framed(rng, _framed(rng, answer))


ANSWERS = (_soup, _flood, _nested, _boxes, _json, _characters, _repeated, _accident)
FRAMES = (_framed, _framed, _framed, _framed, _framed, _bare, _torn, _inside_itself)
