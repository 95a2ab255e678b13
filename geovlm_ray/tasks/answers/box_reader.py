"""Reading the boxes of a model's answer, in whatever notation it wrote them.

Rewards, the ``sound`` metrics and pages read answers this way: the record's dialect first, then every notation of
`box_notations`. The published metrics and rewards use the strict parsers of `box_dialects`.
"""

from __future__ import annotations

import functools
import re

from geovlm_ray.core.geometry import Coords, Frame, convert_coords, ordered
from geovlm_ray.tasks.answers.box_dialects import BoxAnswer, parse_boxes
from geovlm_ray.tasks.answers.box_labels import box_labels
from geovlm_ray.tasks.answers.box_notations import MIN_NUMBERS, FoundBox, find_boxes, normalized
from geovlm_ray.tasks.answers.class_names import ClassNames
from geovlm_ray.tasks.answers.no_boxes import says_none

_LETTER = re.compile(r"[^\W\d_]")
_TAGGED = re.compile(r"(?:(?:<ref>[^<]*</ref>\s*)?<box>[^<]*</box>\s*)+")
_MARKER = re.compile(r"(?:\A|[\s\W])\d{1,3}[.)]\s*\Z")
_MAX_BOX_CHARS = 200
"""Characters of a box in which percent signs are counted; several boxes may share one long list."""
_EDGES = "[](){}|,;:\"' \n"
_REF = re.compile(r"</?ref>")
_NO_BOX = re.compile(r"\[[\s\[\]]*\]|\[[\[\s\d.,-]*\Z")
"""Empty lists, and a list that the end of the text cuts off."""


def read_boxes(
    answer: str,
    dialect: str = "brackets",
    names: ClassNames | None = None,
    frame: Frame | None = None,
    question: str = "",
) -> BoxAnswer | None:
    """The boxes of an answer; None if it has none and does not say either that there are none.

    Corners are put in order. ``names`` are the classes whose names label the boxes beside them; without them, a box has
    a label only if its notation marks one. Boxes whose numbers have percent signs are converted to ``frame``, if given.
    Linear in the length of the answer.

    Raises:
        KeyError: Unknown dialect.
    """
    if _is_pure(answer, dialect):
        strict = parse_boxes(answer, dialect)
        if strict and strict.boxes and not strict.malformed:
            return BoxAnswer(tuple(map(ordered, strict.boxes)), strict.labels)
    text, found = _located(answer, dialect == "polygons")
    if not found:
        return BoxAnswer((), ()) if says_none(text, question) else None
    labels = box_labels(text, found, names)
    valid = [
        (ordered(_in_frame(text, box, box.coords, frame)), label)
        for box, label in zip(found, labels, strict=True)
        if box.coords is not None
    ]
    return BoxAnswer(tuple(b for b, _ in valid), tuple(label for _, label in valid), len(found) - len(valid))


def _is_pure(answer: str, dialect: str) -> bool:
    """Whether an answer may be in its record's dialect alone, whose parser is faster and knows its labels."""
    if "°" in answer or "%" in answer:
        return False
    if dialect == "json":
        return answer.lstrip()[:1] in ("[", "{") and "angle" not in answer
    return bool(_TAGGED.fullmatch(answer)) if dialect == "tagged" else not _LETTER.search(answer)


def _in_frame(text: str, box: FoundBox, coords: Coords, frame: Frame | None) -> tuple[float, ...]:
    """The coordinates, converted to the frame if each of them has a percent sign."""
    end = min(box.end + 1, box.start + _MAX_BOX_CHARS)
    if frame is None or frame.kind == "percent" or text.count("%", box.start, end) < MIN_NUMBERS:
        return tuple(coords)
    return convert_coords(coords, Frame("percent", window=frame.window), frame)


@functools.lru_cache(maxsize=4)
def _located(text: str, polygons: bool) -> tuple[str, tuple[FoundBox, ...]]:
    """The normalized text and its boxes; kept for texts whose boxes and words are both read."""
    text = normalized(text)
    return text, tuple(find_boxes(text, polygons))


def without_boxes(text: str) -> str:
    """Text of a grounded description without its boxes in any notation, and without the tags around names."""
    text, found = _located(text, False)
    edges = [0, *(edge for box in found for edge in (box.start, box.end)), len(text)]
    pieces = [text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
    if len(pieces) > 1:
        starts = [piece.partition("}")[2] if _ends_object(piece) else piece for piece in pieces[1:]]
        first, *middle, last = [pieces[0], *starts]
        first, *middle = [_MARKER.sub("", _before_object(piece).rstrip(_EDGES)) for piece in (first, *middle)]
        pieces = [first.rstrip(_EDGES), *(piece.strip(_EDGES) for piece in middle), last.lstrip(_EDGES)]
    return " ".join(_NO_BOX.sub(" ", _REF.sub(" ", " ".join(pieces))).split())


def _ends_object(piece: str) -> bool:
    """Whether a text after a box begins inside a JSON object."""
    return "}" in piece and "{" not in piece.partition("}")[0]


def _before_object(piece: str) -> str:
    """A text before a box, without the beginning of the JSON object that the box lies in."""
    head, brace, inside = piece.rpartition("{")
    return head if brace and "}" not in inside else piece
