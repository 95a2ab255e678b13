"""Box answers in the dialects of the field, read in time linear in the length of the text.

Every dialect yields the same: the boxes that could be read, how many pieces of the answer claimed to be a
box and were none (wrong count of numbers, NaN, out of range: they count as wrong boxes), and a label per
box where the answer names one. Numbers are plain ASCII decimals, so that what ``float`` would accept beyond
them (``nan``, ``1_0``, other scripts' digits) is malformed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

MAX_COORDINATE = 1e6
"""No coordinate may be larger; beyond it areas would lose their precision."""
LONGEST_NUMBER = 32

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_NOT_FINITE = {"nan", "inf", "infinity", "-inf", "-infinity", "+inf", "+nan", "-nan"}
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_BRACES = re.compile(r"\{([^{}]*)\}")
_ANGLED = re.compile(r"<([^<>]*)>")
_WHOLE_NUMBERS = re.compile(r"<(-?\d{1,6})>" * 4 + r"(?:\|<(-?\d{1,6})>)?", re.ASCII)
_SECTION = re.compile(r"<ref>|</ref>|<box>|</box>")
_GEOCHAT_BOX = re.compile(r"\{(?:<[^<>]*>)+(?:\|<[^<>]*>)?\}")
_WORDY = re.compile(r"\w")
_FENCE = re.compile(r"\A\s*```(?:json)?|```\s*\Z")
_EMPTY = ("", "[]", "[[]]", "{}")
_AROUND_BOXES = "[]{}, \t\r\n"
_BOX_KEYS = ("bbox_2d", "bbox", "box")
_LABEL_KEYS = ("label", "class", "category")


@dataclass(frozen=True)
class BoxAnswer:
    """``boxes`` and ``labels`` have the same length; ``malformed`` counts the pieces that are no box."""

    boxes: tuple[tuple[float, ...], ...]
    labels: tuple[str | None, ...]
    malformed: int = 0

    @property
    def count(self) -> int:
        """Everything that the answer offers as a box."""
        return len(self.boxes) + self.malformed


Found = tuple[tuple[float, ...] | None, str | None]


def parse_boxes(text: str, dialect: str = "brackets", vocabulary: tuple[str, ...] = ()) -> BoxAnswer | None:
    """The boxes of an answer; None where it holds none and does not say so with an empty list or nothing at all.

    ``vocabulary`` are the names that `brackets` looks for beside a box.

    Raises:
        KeyError: no such dialect.
    """
    found = list(DIALECTS[dialect](text, vocabulary))
    if not found and text.strip() and not _says_empty(text):
        return None
    good = [(box, label) for box, label in found if box is not None]
    return BoxAnswer(tuple(b for b, _ in good), tuple(n for _, n in good), len(found) - len(good))


def strip_boxes(text: str) -> str:
    """The words of a grounded description: without ``<box>`` sections, boxes of any dialect and ref tags."""
    text = _GEOCHAT_BOX.sub(" ", text)
    kept: list[str] = []
    outside = True
    last = 0
    for tag in _SECTION.finditer(text):
        if outside:
            kept.append(text[last : tag.start()])
        outside = tag[0] != "<box>" and (outside or tag[0] == "</box>")
        last = tag.end()
    if outside:
        kept.append(text[last:])
    return " ".join(_outside_brackets(" ".join(kept)).split())


def replace_boxes(text: str, convert: Callable[[tuple[float, ...]], tuple[float, ...]]) -> str:
    """The text with the numbers of every ``[...]`` and ``{<...>}`` box in it converted; all else stays as it is."""

    def bracketed(hit: re.Match[str]) -> str:
        box = _box(hit[1].split(","))
        return hit[0] if box is None else f"[{', '.join(f'{c:g}' for c in convert(box))}]"

    def angled(hit: re.Match[str]) -> str:
        box = _box(_ANGLED.findall(hit[0]))
        if box is None:
            return hit[0]
        numbers = [f"<{c:g}>" for c in convert(box)]
        return "{" + "".join(numbers[:4]) + "".join(f"|{n}" for n in numbers[4:]) + "}"

    return _GEOCHAT_BOX.sub(angled, _BRACKETS.sub(bracketed, text))


def _outside_brackets(text: str) -> str:
    """Text without its innermost brackets that hold numbers, and without the brackets and commas around those."""
    hits = [m for m in _BRACKETS.finditer(text) if _claims_box(m[1])]
    if not hits:
        return text
    starts = [0, *(m.end() for m in hits)]
    ends = [*(m.start() for m in hits), len(text)]
    pieces = [text[a:b] for a, b in zip(starts, ends, strict=True)]
    first, last = pieces[0].rstrip(_AROUND_BOXES), pieces[-1].lstrip(_AROUND_BOXES)
    return " ".join([first, *(p.strip(_AROUND_BOXES) for p in pieces[1:-1]), last])


def _says_empty(text: str) -> bool:
    bare = _FENCE.sub("", text.replace("<box>", "").replace("</box>", ""))
    return "".join(bare.split()) in _EMPTY


def _claims_box(inside: str) -> bool:
    return any(_NUMBER.fullmatch(p) or p.lower() in _NOT_FINITE for p in map(str.strip, inside.split(",")))


def _numbers(pieces: list[str]) -> tuple[float, ...] | None:
    """The pieces as finite numbers within range, or None."""
    values = []
    for piece in pieces:
        stripped = piece.strip()
        if len(stripped) > LONGEST_NUMBER or not _NUMBER.fullmatch(stripped):
            return None
        values.append(float(stripped))
    return tuple(values) if max(map(abs, values)) <= MAX_COORDINATE else None


def _box(pieces: list[str]) -> tuple[float, ...] | None:
    return _numbers(pieces) if len(pieces) in (4, 5) else None


def _brackets(text: str, vocabulary: tuple[str, ...]) -> Iterator[Found]:
    """Every nesting of brackets around 4 or 5 numbers; names of the vocabulary before (or after) them are labels."""
    hits = [m for m in _BRACKETS.finditer(text) if _claims_box(m[1])]
    labels = _labels_beside(text, hits, vocabulary) if vocabulary and hits else [None] * len(hits)
    for hit, label in zip(hits, labels, strict=True):
        yield _box(hit[1].split(",")), label


def _labels_beside(text: str, hits: list[re.Match[str]], vocabulary: tuple[str, ...]) -> list[str | None]:
    """The name that stands before each bracket, or after each where none leads the first.

    Brackets with nothing but punctuation between them share their name, as in ``ship [[..], [..]]``.
    """
    names = sorted(dict.fromkeys(vocabulary), key=len, reverse=True)
    edges = zip([0, *(m.end() for m in hits)], [*(m.start() for m in hits), len(text)], strict=True)
    gaps = [text[a:b] for a, b in edges]
    leading = _name_in(gaps[0], names) is not None
    labels: list[str | None] = []
    for gap in gaps[:-1] if leading else gaps[:0:-1]:
        shared = labels[-1] if labels and not _WORDY.search(gap) else None
        labels.append(_name_in(gap, names) or shared)
    return labels if leading else labels[::-1]


def _name_in(text: str, names: list[str]) -> str | None:
    """The first of the names that stands in the text as whole words."""
    folded = text.casefold()
    for name in names:
        if name.casefold() in folded and re.search(rf"(?<!\w){re.escape(name.casefold())}(?!\w)", folded):
            return name
    return None


def _geochat(text: str, vocabulary: tuple[str, ...]) -> Iterator[Found]:
    """``{<x1><y1><x2><y2>|<angle>}``, the angle optional."""
    for group in _BRACES.finditer(text):
        if plain := _WHOLE_NUMBERS.fullmatch(group[1]):
            yield tuple(float(number) for number in plain.groups() if number is not None), None
            continue
        corners, bar, angle = group[1].partition("|")
        pieces = _ANGLED.findall(corners) + (_ANGLED.findall(angle) if bar else [])
        if pieces:
            whole = "".join(f"<{p}>" for p in pieces) == (corners + angle).replace(" ", "")
            yield (_box(pieces) if whole and len(pieces) == 4 + bool(bar) else None), None


def _tagged(text: str, vocabulary: tuple[str, ...]) -> Iterator[Found]:
    """``<ref>name</ref><box>[[...]]</box>``: brackets inside box tags, labelled by the ref before them."""
    label: str | None = None
    opened: tuple[str, int] | None = None
    for tag in _SECTION.finditer(text):
        if tag[0] in ("<ref>", "<box>"):
            opened = tag[0], tag.end()
        elif opened:
            inside = text[opened[1] : tag.start()]
            if (opened[0], tag[0]) == ("<ref>", "</ref>"):
                label = inside.strip()
            elif (opened[0], tag[0]) == ("<box>", "</box>"):
                yield from ((box, label) for box, _ in _brackets(inside, ()))
            opened = None


def _json(text: str, vocabulary: tuple[str, ...]) -> Iterator[Found]:
    """JSON objects with ``bbox_2d`` and a label (Qwen's form), alone, in a list or in a code fence."""
    try:
        value = json.loads(_FENCE.sub("", text))
    except (ValueError, RecursionError):
        return
    one = not isinstance(value, list) or (value and not any(isinstance(v, list | dict) for v in value))
    for item in [value] if one else value:
        if isinstance(item, dict):
            box = next((item[k] for k in _BOX_KEYS if k in item), None)
            label = next((item[k] for k in _LABEL_KEYS if isinstance(item.get(k), str)), None)
            yield _json_box(box), label
        else:
            yield _json_box(item), None


def _json_box(value: Any) -> tuple[float, ...] | None:
    if not isinstance(value, list) or len(value) not in (4, 5):
        return None
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    return tuple(map(float, value)) if numeric and all(-MAX_COORDINATE <= v <= MAX_COORDINATE for v in value) else None


def _polygons(text: str, vocabulary: tuple[str, ...]) -> Iterator[Found]:
    """``[[x, y], [x, y], [x, y], ...]`` or ``[x, y, x, y, x, y, ...]``; boxes of 4 or 5 numbers pass as they are."""
    pairs: list[tuple[float, ...] | None] = []
    last = 0
    for group in _BRACKETS.finditer(text):
        if not _claims_box(group[1]):
            continue
        pieces = group[1].split(",")
        corner = len(pieces) == 2
        if pairs and (not corner or text[last : group.start()].strip(" \t\r\n,")):
            yield _polygon(pairs), None
            pairs = []
        last = group.end()
        if corner:
            pairs.append(_numbers(pieces))
        else:
            yield (_numbers(pieces) if len(pieces) >= 6 and len(pieces) % 2 == 0 else _box(pieces)), None
    if pairs:
        yield _polygon(pairs), None


def _polygon(pairs: list[tuple[float, ...] | None]) -> tuple[float, ...] | None:
    """The corners in one row; None where there are fewer than three, or one could not be read."""
    numbers = tuple(n for pair in pairs if pair is not None for n in pair)
    return numbers if 6 <= len(numbers) == 2 * len(pairs) else None


DIALECTS: dict[str, Callable[[str, tuple[str, ...]], Iterator[Found]]] = {
    "brackets": _brackets,
    "geochat": _geochat,
    "tagged": _tagged,
    "json": _json,
    "polygons": _polygons,
}
