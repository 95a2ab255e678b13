"""Parsers for the box formats (dialects) of published models, linear in the length of the text.

Every dialect yields the valid boxes, the number of malformed boxes (wrong number of coordinates, NaN, out of range;
they count as false positives) and an optional label per box. Coordinates are plain ASCII decimals; other strings that
``float`` accepts (``nan``, ``1_0``, non-ASCII digits) are malformed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

MAX_COORDINATE = 1e6
"""Maximum absolute coordinate; areas of larger boxes would lose floating-point precision."""
MAX_NUMBER_CHARS = 32

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_NOT_FINITE = {"nan", "inf", "infinity", "-inf", "-infinity", "+inf", "+nan", "-nan"}
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_BRACES = re.compile(r"\{([^{}]*)\}")
_ANGLED = re.compile(r"<([^<>]*)>")
_INTEGER_BOX = re.compile(r"<(-?\d{1,6})>" * 4 + r"(?:\|<(-?\d{1,6})>)?", re.ASCII)
_SECTION = re.compile(r"<ref>|</ref>|<box>|</box>")
_BOX_SECTION = re.compile(r"<box>.*?(?:</box>|\Z)|</box>|</?ref>", re.DOTALL)
_GEOCHAT_BOX = re.compile(r"\{(?:<[^<>]*>)+(?:\|<[^<>]*>)?\}")
_WORD_CHAR = re.compile(r"\w")
_FENCE = re.compile(r"\A\s*```(?:json)?|```\s*\Z")
_EMPTY_ANSWERS = ("", "[]", "[[]]", "{}")
_BOX_DELIMITERS = "[]{}, \t\r\n"
_BOX_KEYS = ("bbox_2d", "bbox", "box")
_LABEL_KEYS = ("label", "class", "category")


@dataclass(frozen=True)
class BoxAnswer:
    """Parsed boxes and their labels, of the same length; ``malformed`` is the number of unreadable boxes."""

    boxes: tuple[tuple[float, ...], ...]
    labels: tuple[str | None, ...]
    malformed: int = 0

    @property
    def count(self) -> int:
        """Number of boxes in the answer, including malformed ones."""
        return len(self.boxes) + self.malformed


ParsedBox = tuple[tuple[float, ...] | None, str | None]


def parse_boxes(text: str, dialect: str = "brackets", vocabulary: tuple[str, ...] = ()) -> BoxAnswer | None:
    """Parse the boxes of an answer; None if it contains no box and is neither empty nor an empty list.

    ``vocabulary`` lists the label names that the ``brackets`` dialect recognizes next to boxes.

    Raises:
        KeyError: Unknown dialect.
    """
    parsed = list(DIALECTS[dialect](text, vocabulary))
    if not parsed and text.strip() and not _is_empty_answer(text):
        return None
    valid = [(box, label) for box, label in parsed if box is not None]
    return BoxAnswer(tuple(b for b, _ in valid), tuple(n for _, n in valid), len(parsed) - len(valid))


def strip_boxes(text: str) -> str:
    """Text of a grounded description without ``<box>`` sections, boxes of any dialect and ref tags."""
    return " ".join(_outside_brackets(_BOX_SECTION.sub(" ", _GEOCHAT_BOX.sub(" ", text))).split())


def replace_boxes(text: str, convert: Callable[[tuple[float, ...]], tuple[float, ...]]) -> str:
    """Apply ``convert`` to every ``[...]`` and ``{<...>}`` box in the text; the rest is unchanged."""

    def convert_brackets(hit: re.Match[str]) -> str:
        box = _box(hit[1].split(","))
        return hit[0] if box is None else f"[{', '.join(f'{c:g}' for c in convert(box))}]"

    def convert_geochat(hit: re.Match[str]) -> str:
        box = _box(_ANGLED.findall(hit[0]))
        if box is None:
            return hit[0]
        numbers = [f"<{c:g}>" for c in convert(box)]
        return "{" + "".join(numbers[:4]) + "".join(f"|{n}" for n in numbers[4:]) + "}"

    return _GEOCHAT_BOX.sub(convert_geochat, _BRACKETS.sub(convert_brackets, text))


def _outside_brackets(text: str) -> str:
    """Text without innermost brackets that contain numbers and the brackets and commas around them."""
    hits = [m for m in _BRACKETS.finditer(text) if _looks_like_box(m[1])]
    if not hits:
        return text
    starts = [0, *(m.end() for m in hits)]
    ends = [*(m.start() for m in hits), len(text)]
    pieces = [text[a:b] for a, b in zip(starts, ends, strict=True)]
    first, last = pieces[0].rstrip(_BOX_DELIMITERS), pieces[-1].lstrip(_BOX_DELIMITERS)
    return " ".join([first, *(p.strip(_BOX_DELIMITERS) for p in pieces[1:-1]), last])


def _is_empty_answer(text: str) -> bool:
    bare = _FENCE.sub("", text.replace("<box>", "").replace("</box>", ""))
    return "".join(bare.split()) in _EMPTY_ANSWERS


def _looks_like_box(inside: str) -> bool:
    return any(_NUMBER.fullmatch(p) or p.lower() in _NOT_FINITE for p in map(str.strip, inside.split(",")))


def _numbers(pieces: list[str]) -> tuple[float, ...] | None:
    """Parse pieces as numbers within `MAX_COORDINATE`; None if any is malformed."""
    values = []
    for piece in pieces:
        stripped = piece.strip()
        if len(stripped) > MAX_NUMBER_CHARS or not _NUMBER.fullmatch(stripped):
            return None
        values.append(float(stripped))
    return tuple(values) if max(map(abs, values)) <= MAX_COORDINATE else None


def _box(pieces: list[str]) -> tuple[float, ...] | None:
    return _numbers(pieces) if len(pieces) in (4, 5) else None


def _brackets(text: str, vocabulary: tuple[str, ...]) -> Iterator[ParsedBox]:
    """``[x1, y1, x2, y2]``, optionally with an angle, at any nesting; vocabulary names next to boxes are labels."""
    hits = [m for m in _BRACKETS.finditer(text) if _looks_like_box(m[1])]
    labels = _adjacent_labels(text, hits, vocabulary) if vocabulary and hits else [None] * len(hits)
    for hit, label in zip(hits, labels, strict=True):
        yield _box(hit[1].split(",")), label


def _adjacent_labels(text: str, hits: list[re.Match[str]], vocabulary: tuple[str, ...]) -> list[str | None]:
    """Label of each bracket: the name before it, or the name after it if no name precedes the first bracket.

    Brackets separated only by punctuation share a label, as in ``ship [[..], [..]]``.
    """
    names = sorted(dict.fromkeys(vocabulary), key=len, reverse=True)
    edges = zip([0, *(m.end() for m in hits)], [*(m.start() for m in hits), len(text)], strict=True)
    gaps = [text[a:b] for a, b in edges]
    leading = _name_in(gaps[0], names) is not None
    labels: list[str | None] = []
    for gap in gaps[:-1] if leading else gaps[:0:-1]:
        shared = labels[-1] if labels and not _WORD_CHAR.search(gap) else None
        labels.append(_name_in(gap, names) or shared)
    return labels if leading else labels[::-1]


def _name_in(text: str, names: list[str]) -> str | None:
    """First name in ``names`` that occurs in the text as whole words."""
    folded = text.casefold()
    contained = (name for name in names if name.casefold() in folded)
    return next((n for n in contained if re.search(rf"(?<!\w){re.escape(n.casefold())}(?!\w)", folded)), None)


def _geochat(text: str, vocabulary: tuple[str, ...]) -> Iterator[ParsedBox]:
    """``{<x1><y1><x2><y2>|<angle>}``; the angle is optional."""
    for group in _BRACES.finditer(text):
        if plain := _INTEGER_BOX.fullmatch(group[1]):
            yield tuple(float(number) for number in plain.groups() if number is not None), None
            continue
        corners, bar, angle = group[1].partition("|")
        pieces = _ANGLED.findall(corners) + (_ANGLED.findall(angle) if bar else [])
        if pieces:
            whole = "".join(f"<{p}>" for p in pieces) == (corners + angle).replace(" ", "")
            yield (_box(pieces) if whole and len(pieces) == 4 + bool(bar) else None), None


def _tagged(text: str, vocabulary: tuple[str, ...]) -> Iterator[ParsedBox]:
    """``<ref>name</ref><box>[[...]]</box>``: brackets inside box tags, labelled by the preceding ref."""
    label: str | None = None
    open_tag: tuple[str, int] | None = None
    for tag in _SECTION.finditer(text):
        if tag[0] in ("<ref>", "<box>"):
            open_tag = tag[0], tag.end()
        elif open_tag:
            inside = text[open_tag[1] : tag.start()]
            if (open_tag[0], tag[0]) == ("<ref>", "</ref>"):
                label = inside.strip()
            elif (open_tag[0], tag[0]) == ("<box>", "</box>"):
                yield from ((box, label) for box, _ in _brackets(inside, ()))
            open_tag = None


def _json(text: str, vocabulary: tuple[str, ...]) -> Iterator[ParsedBox]:
    """JSON object or list of objects with ``bbox_2d`` and a label (Qwen's format), optionally in a code fence."""
    try:
        value = json.loads(_FENCE.sub("", text))
    except (ValueError, RecursionError):
        return
    is_single = not isinstance(value, list) or (value and not any(isinstance(v, list | dict) for v in value))
    for item in [value] if is_single else value:
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


def _polygons(text: str, vocabulary: tuple[str, ...]) -> Iterator[ParsedBox]:
    """``[[x, y], [x, y], [x, y], ...]`` or ``[x, y, x, y, x, y, ...]``; boxes of 4 or 5 numbers are kept."""
    pairs: list[tuple[float, ...] | None] = []
    last = 0
    for group in _BRACKETS.finditer(text):
        if not _looks_like_box(group[1]):
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
    """Flat corner coordinates; None if there are fewer than three corners or one is malformed."""
    numbers = tuple(n for pair in pairs if pair is not None for n in pair)
    return numbers if 6 <= len(numbers) == 2 * len(pairs) else None


DIALECTS: dict[str, Callable[[str, tuple[str, ...]], Iterator[ParsedBox]]] = {
    "brackets": _brackets,
    "geochat": _geochat,
    "tagged": _tagged,
    "json": _json,
    "polygons": _polygons,
}
