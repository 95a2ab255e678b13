"""Finding boxes in free text: every common way to write four or five numbers, in one pass of linear time.

Notations: lists in any bracket, with commas, spaces, semicolons or table bars; percent, degree and pixel signs; corner
pairs (``(1, 2), (3, 4)``, also with words such as "top-left"); four corners; named coordinates (``x1=1, y1=2, ...``,
``"xmin": 1``, ``"width": 5``); GeoChat's ``<1><2><3><4>|<0>`` and Florence-2's eight numbers of a quadrilateral; the
box tags of InternVL and Qwen2-VL; and four or five bare numbers that stand alone on a line or follow a word for a
position. Other numbers in a text are not boxes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from geovlm_ray.tasks.answers.box_dialects import MAX_COORDINATE, MAX_NUMBER_CHARS

Coords = tuple[float, ...]


MIN_NUMBERS = 4
"""Numbers of a box."""


def word_set(words: str) -> frozenset[str]:
    """The words of a text that are separated by spaces."""
    return frozenset(words.split())


class FoundBox(NamedTuple):
    """A box in a text: its position, and its numbers, or None if it is malformed."""

    start: int
    end: int
    coords: Coords | None


class _Run(NamedTuple):
    """Numbers with only separators between them; ``opened`` and ``closed`` are the brackets or quotes around them.

    ``keys`` are the names before the numbers, empty without one.
    """

    start: int
    end: int
    numbers: Coords
    keys: tuple[str, ...]
    opened: bool
    closed: bool

    @property
    def is_pair(self) -> bool:
        """Whether the run may be a corner: ``(1, 2)``, ``x=1, y=2``, ``top left 1, 2`` or ``x1, y1 = 1, 2``."""
        if any(self.keys):
            return self.keys == ("x", "y") or (len(self.keys) == 2 and self.keys[0] in _LAST_KEYS and not self.keys[1])
        return len(self.numbers) == 2 and self.opened and self.closed


_NUMBER = r"[+-]?(?:\d++(?:\.\d++)?+|\.\d++)(?:[eE][+-]?\d{1,4})?+"
_LOWS = {"x1": 0, "xmin": 0, "left": 0, "x": 0, "minx": 0, "y1": 1, "ymin": 1, "miny": 1, "top": 1, "y": 1}
_HIGHS = {"x2": 2, "xmax": 2, "maxx": 2, "right": 2, "y2": 3, "ymax": 3, "maxy": 3, "bottom": 3}
_SIZES = {"w": 2, "width": 2, "h": 3, "height": 3}
_CENTRES = {"cx": 0, "xcenter": 0, "centerx": 0, "cy": 1, "ycenter": 1, "centery": 1}
_ANGLES = {"angle": 4, "theta": 4, "rotation": 4}
_FROM_ZERO = {"x0": "x1", "y0": "y1", "x1": "x2", "y1": "y2"}
_LAST_KEYS = ("left", "right", "y1", "y2", "ymin", "ymax")
"""Last words of the name of a corner."""
_PLACES = _LOWS | _HIGHS | _SIZES | _CENTRES | _ANGLES
_KEY = (
    r"[\"']?(?<!\w)(?P<key>[xy][ _-]?(?:0|1|2|min|max|center)|c[xy]|(?:min|max|center)[ _-]?[xy]|left|right|top|bottom|"
    r"width|height|angle|theta|rotation|[xywh])[\"']? ?(?:[:=]|is\b)? ?[\"']?"
)
_UNIT = r"(?: ?(?:%|°|px\b|pixels?\b|deg(?:rees)?\b))?+"
_ITEM = rf"(?:{_KEY})?(?<![\w.])(?P<number>{_NUMBER}){_UNIT}(?!\w|\.\d)"
_PLAIN_KEY, _PLAIN_ITEM = (re.sub(r"\?P<\w+>", "?:", pattern) for pattern in (_KEY, _ITEM))
_SEPARATOR = rf"(?:[\"'.]?+ ?[,;|]\s?|[\"']? |\n(?:- )?(?={_PLAIN_KEY}[+-]?\.?\d))"
_RUN = re.compile(rf"{_PLAIN_ITEM}(?:{_SEPARATOR}{_PLAIN_ITEM})*+", re.ASCII | re.IGNORECASE)
_NUMBERED = re.compile(_ITEM, re.ASCII | re.IGNORECASE)
_LIST = re.compile(rf"\[ ?({_NUMBER}(?: ?, ?{_NUMBER}){{3,4}}) ?\]", re.ASCII)
_OPENED_NUMBER = re.compile(r"[\[({<]\s?[-+.\d]")
_PLAIN_NUMBER, _LETTER = re.compile(_NUMBER, re.ASCII), re.compile(r"[^\W\d_]")

_LOCATION = rf"<\s?(?:loc_)?{_NUMBER}\s?>"
_ANGLED = re.compile(rf"\{{?\s?{_LOCATION}(?:,?\s?{_LOCATION}){{2,}}+(?:\|\s?{_LOCATION})?\s?\}}?", re.ASCII)
_RANGE = rf"\b[ \w:=,\[(]{{0,14}}?({_NUMBER}) ?(?:-|to|and|,) ?(?:[xy] ?= ?)?({_NUMBER})[\])]?"
_RANGES = re.compile(rf"\bx{_RANGE}[,; ]{{0,3}}(?:and )?(?:from )?y{_RANGE}", re.ASCII | re.IGNORECASE)
_ELEMENT = re.compile(rf"<([xy](?:1|2|min|max))>\s?({_NUMBER})\s?</\w{{2,4}}>\s?", re.ASCII)
_BOX_OPEN = re.compile(r"<\|box_start\|>|<(?:b?box|rect|quad)>", re.IGNORECASE)
_BOX_CLOSE = re.compile(r"<\|box_end\|>|</(?:b?box|rect|quad)>", re.IGNORECASE)
_REF_OPEN = re.compile(r"<\|object_ref_start\|>|<p>", re.IGNORECASE)
_REF_CLOSE = re.compile(r"<\|object_ref_end\|>|</p>", re.IGNORECASE)
_FENCE = re.compile(r"```(?:\w{1,12}\b)?")
_SPACES, _LINES = re.compile(r"[^\S\n]+"), re.compile(r" ?\n[ \n]*")
_CHARACTERS = str.maketrans(
    "（），、【】［］｛｝：；−–－．％“”０１２３４５６７８９", '(),,[][]{}:;---.%""0123456789', "*`"
)
_QUOTED_NUMBER = re.compile(rf"([\[(,]\s?)([\"'])\s?({_NUMBER})\s?\2", re.ASCII)
_OPENERS, _CLOSERS = tuple("[({\"'"), tuple("])}\"'")

_WORD = re.compile(r"[^\W\d_][\w'-]*")
_CORNER = word_set("top left bottom right upper lower tl br corner corners between start end x1 y1 x2 y2")
_CORNER_GAP = _CORNER | word_set("and to the at is its of point coordinates with from while a")
_LINKS = {"to", "through"}
_CORNER_NAME = re.compile(
    r"[(\[]?\b(?:top|upper|bottom|lower)[-_ ]?(?:left|right)(?: corner)?[\"']?(?: at)? ?[:=]? ?[(\[]?\Z", re.IGNORECASE
)
_SUBSCRIPT = re.compile(r"\b([xy])_(\d)")
_TWO_CLOSERS = re.compile(r"[\])}]\s?[\])}]")
_NAME_FIRST = re.compile(r"[\[({]\s?[\"']?[^\[\](){}\d\"']{1,40}[\"']?\s?[,:|] ?\Z")
MAX_GAP = 60
"""Characters between the corners of a box, and around bare numbers, that are looked at."""
_POSITION = word_set(
    "at box bbox boxes bounding coordinates coordinate coords location located position corners region"
)
_PROSE = word_set("in of from are were was with has have had there and years year between about since")


def normalized(text: str) -> str:
    """The text with single spaces and line breaks, ASCII brackets, ``[...]`` for box tags, and ``<ref>`` for names."""
    if "\\" in text:
        text = text.replace("\\n", "\n").replace("\\", "")
    text = _FENCE.sub(" ", text) if "```" in text else text
    text = _QUOTED_NUMBER.sub(r"\1\3", text.translate(_CHARACTERS))
    if "<" in text:
        text = _BOX_CLOSE.sub("]", _BOX_OPEN.sub("[", text))
        text = _REF_CLOSE.sub("</ref>", _REF_OPEN.sub("<ref>", text))
        text = _ELEMENT.sub(r"\1=\2, ", _ANGLED.sub(_angled_as_lists, text))
    if "x" in text or "X" in text:
        text = _RANGES.sub(r"x1=\1, y1=\3, x2=\2, y2=\4", text)
    return text if text.isprintable() and "  " not in text else _LINES.sub("\n", _SPACES.sub(" ", text))


def find_boxes(text: str, polygons: bool = False) -> list[FoundBox]:
    """The boxes of a `normalized` text, in order; ``polygons``: three or more corners are always one polygon."""
    if lists := _lists(text):
        return _with_angles(text, lists)
    runs = list(_runs(text))
    found: list[FoundBox] = []
    length = len(text.rstrip(" \n,."))
    i = 0
    while i < len(runs):
        count = 1
        if runs[i].is_pair:
            leads = bool(_lower_words(text[max(0, runs[i].start - MAX_GAP) : runs[i].start]) & _CORNER)
            while i + count < len(runs) and _continues(text, runs[i + count - 1], runs[i + count], leads):
                count += 1
            following = runs[i + 1] if count == 1 and i + 1 < len(runs) else None
            if following and {_SIZES.get(key) for key in following.keys} == {2, 3}:
                found.append(_corner_and_size(runs[i], following))
                count = 2
            else:
                named = _CORNER_NAME.search(text[max(0, runs[i].start - MAX_GAP) : runs[i].start])
                start = runs[i].start - (len(named[0]) if named else 0)
                found += _from_corners(runs[i : i + count], start, polygons)
        else:
            found += _from_run(text, runs[i], polygons, length)
        i += count
    return _with_angles(text, found)


def _lists(text: str) -> list[FoundBox]:
    """The boxes of a text that are all lists in square brackets, the quickest to find; none if others are possible."""
    rest = _LIST.sub("", text)
    if _OPENED_NUMBER.search(rest) or len(_PLAIN_NUMBER.findall(rest)) >= MIN_NUMBERS:
        return []
    return [
        FoundBox(hit.start(1), hit.end(1), _valid(tuple(_value(n.strip()) for n in hit[1].split(","))))
        for hit in _LIST.finditer(text)
    ]


def _angled_as_lists(hit: re.Match[str]) -> str:
    """Numbers in angle brackets as lists of one box each: of eight numbers unless they are boxes of four in a row."""
    numbers = [n.strip() for n in re.findall(r"<(?:\s?loc_)?([^<>]*)>", hit[0])]
    count = len(numbers)
    are_corners = count % 8 == 0 and not _is_flat_list(tuple(map(_value, numbers)))
    size = 8 if are_corners else count if count % 4 else 4
    return "".join(f" [{', '.join(numbers[k : k + size])}] " for k in range(0, count, size))


def _runs(text: str) -> Iterator[_Run]:
    """The runs of a text; one whose names repeat, as ``x=1, y=2, x=3, y=4`` does, is several."""
    for hit in _RUN.finditer(text):
        if not _LETTER.search(hit[0]):
            numbers = tuple(map(_value, _PLAIN_NUMBER.findall(hit[0])))
            yield _run(text, hit.start(), hit.end(), numbers, ("",) * len(numbers))
            continue
        items = list(_NUMBERED.finditer(text, hit.start(), hit.end()))
        keys = [re.sub(r"[^a-z0-9]", "", (item["key"] or "").lower()) for item in items]
        starts = [0]
        for k, key in enumerate(keys):
            if key and key in keys[starts[-1] : k]:
                starts.append(k)
        for a, b in zip(starts, [*starts[1:], len(items)], strict=True):
            numbers = tuple(_value(item["number"]) for item in items[a:b])
            yield _run(text, items[a].start(), items[b - 1].end(), numbers, tuple(keys[a:b]))


def _run(text: str, start: int, end: int, numbers: Coords, keys: tuple[str, ...]) -> _Run:
    opened = text[max(0, start - 2) : start].rstrip()[-1:] in _OPENERS
    return _Run(start, end, numbers, keys, opened, text[end : end + 2].lstrip()[:1] in _CLOSERS)


def _value(number: str) -> float:
    """The number, or infinity if it is too long to be a coordinate."""
    return float(number) if len(number) <= MAX_NUMBER_CHARS else float("inf")


def _valid(coords: Coords) -> Coords | None:
    return coords if max(map(abs, coords)) <= MAX_COORDINATE else None


def _lower_words(text: str) -> set[str]:
    return {word for piece in _WORD.findall(_SUBSCRIPT.sub(r"\1\2", text.lower())) for word in re.split("[-_]", piece)}


def _continues(text: str, run: _Run, following: _Run, leads: bool) -> bool:
    """Whether a corner belongs to the same box or polygon as the corner before it; ``leads``: words for corners precede
    the first one.
    """
    gap = text[run.end : following.start]
    if not following.is_pair or len(gap) > MAX_GAP or _TWO_CLOSERS.search(gap):
        return False
    words = _lower_words(gap)
    return words <= _LINKS or (words <= _CORNER_GAP and (leads or bool(words & _CORNER)))


def _corner_and_size(corner: _Run, size: _Run) -> FoundBox:
    x, y = corner.numbers
    width, height = size.numbers if size.keys[0][0] == "w" else size.numbers[::-1]
    return FoundBox(corner.start, size.end, _valid((x, y, x + width, y + height)))


def _from_corners(pairs: list[_Run], start: int, polygons: bool) -> Iterator[FoundBox]:
    """Boxes of two corners each, or one polygon, the first one from ``start``; a single corner is no box."""
    points = [run.numbers for run in pairs]
    ascending = all(a[0] < b[0] and a[1] < b[1] for a, b in zip(points[::2], points[1::2], strict=False))
    if len(points) > 2 and (polygons or not ascending):
        yield FoundBox(start, pairs[-1].end, _valid(tuple(v for point in points for v in point)))
        return
    for k in range(0, len(points) - 1, 2):
        yield FoundBox(pairs[k].start if k else start, pairs[k + 1].end, _valid((*points[k], *points[k + 1])))


def _from_run(text: str, run: _Run, polygons: bool, length: int) -> Iterator[FoundBox]:
    coords = _named(run) if any(run.keys) else None
    if coords is not None:
        yield FoundBox(run.start, run.end, _valid(coords))
        return
    count = len(run.numbers)
    if any(run.keys) and not (count == 5 and run.keys.index("angle" if "angle" in run.keys else run.keys[0]) == 4):
        return
    is_list = "[" in text[max(0, run.start - 2) : run.start]
    is_cut_off = run.end >= length
    fits = count in (4, 5, 8) or (polygons and count >= 6 and count % 2 == 0)
    if count > 5 and (parts := _parts(text, run)):
        yield from parts
    elif run.opened and not polygons and _is_flat_list(run.numbers):
        for k in range(0, count, 4):
            yield FoundBox(run.start, run.end, _valid(run.numbers[k : k + 4]))
    elif fits and run.opened and (run.closed or is_list or is_cut_off):
        yield FoundBox(run.start, run.end, _valid(run.numbers))
    elif count in (4, 5) and not run.opened:
        is_alone = _stands_alone(text, run) and not run.closed
        if is_alone or _NAME_FIRST.search(text[max(0, run.start - MAX_GAP) : run.start]):
            yield FoundBox(run.start, run.end, _valid(run.numbers))
    elif is_list and not is_cut_off:
        # Other brackets also hold remarks, such as "(2 ships)".
        yield FoundBox(run.start, run.end, None)


def _is_flat_list(numbers: Coords) -> bool:
    """Whether numbers are several boxes in a row; the corners of a polygon do not ascend in every second pair."""
    boxes = [numbers[k : k + 4] for k in range(0, len(numbers), 4)]
    return len(numbers) > 4 and all(len(b) == 4 and b[0] < b[2] and b[1] < b[3] for b in boxes)


def _named(run: _Run) -> Coords | None:
    """Coordinates of a run such as ``x1=1, y1=2, x2=3, y2=4``, in any order, or with width and height."""
    keys = run.keys
    if {"x0", "y0"} & set(keys):
        keys = tuple(_FROM_ZERO.get(key, key) for key in keys)
    places = {key: value for key, value in zip(keys, run.numbers, strict=True) if key}
    if len(places) not in (4, 5) or len(places) != len(run.numbers):
        return None
    by_place = {_PLACES.get(key): value for key, value in places.items()}
    if not {0, 1, 2, 3} <= by_place.keys():
        return None
    x, y, right, bottom = (by_place[k] for k in range(4))
    if places.keys() & _CENTRES.keys():
        x, y = x - right / 2, y - bottom / 2
    if places.keys() & _SIZES.keys():
        right, bottom = x + right, y + bottom
    return (x, y, right, bottom, *([by_place[4]] if 4 in by_place else []))


def _parts(text: str, run: _Run) -> list[FoundBox]:
    """Boxes in a run of more numbers, separated by line breaks, semicolons, bars or commas.

    Corners ``x y, x y, ...`` are one polygon.
    """
    for separator in "\n;|,":
        pieces = list(re.finditer(rf"[^{separator}]+", text[run.start : run.end]))
        rows = [tuple(map(_value, _PLAIN_NUMBER.findall(piece[0]))) for piece in pieces]
        lengths = set(map(len, rows))
        if len(rows) > 1 and lengths <= {4, 5}:
            spans = [(run.start + piece.start(), run.start + piece.end()) for piece in pieces]
            return [FoundBox(*span, _valid(row)) for span, row in zip(spans, rows, strict=True)]
        if len(rows) > 2 and lengths == {2}:
            return [FoundBox(run.start, run.end, _valid(run.numbers))]
    return []


def _stands_alone(text: str, run: _Run) -> bool:
    """Whether bare numbers are a box: alone on their line beside a short name, or after a word for a position."""
    before = text[max(0, run.start - MAX_GAP) : run.start].rpartition("\n")[2]
    after = text[run.end : run.end + MAX_GAP].partition("\n")[0].partition(";")[0]
    words = [word.lower() for word in _WORD.findall(before)]
    if set(words) & _POSITION:
        return True
    clause = [word.lower() for word in _WORD.findall(re.split(r"[.!?:;]", before.rstrip(" :=-"))[-1])]
    following = [word.lower() for word in _WORD.findall(after)]
    return len(clause) <= 3 and len(following) <= 3 and not {*clause, *following} & _PROSE


_DEGREES = r" ?(?:°|deg(?:rees?)?\b)"
_ANGLE_AFTER = re.compile(
    rf"[\])}}]{{0,3}}[\"']?,? ?[\"'(]?(?:(?:with an? |at an? )?(?:angle|theta|rotat(?:ion|ed)|tilt(?:ed)?)[\"']?"
    rf"(?: of| by| is)? ?[:=]? ?({_NUMBER})(?:{_DEGREES})?|(?:(?:at|with|by) )?({_NUMBER}){_DEGREES})",
    re.ASCII | re.IGNORECASE,
)


def _with_angles(text: str, found: list[FoundBox]) -> list[FoundBox]:
    """Boxes of four numbers followed by ``angle: 30`` or ``30 degrees`` get it as their fifth number."""
    boxes = []
    for box in found:
        angle = _ANGLE_AFTER.match(text, box.end) if box.coords and len(box.coords) == 4 else None
        with_angle = (
            box.coords
            and angle
            and FoundBox(box.start, angle.end(), _valid((*box.coords, _value(angle[1] or angle[2]))))
        )
        boxes.append(with_angle or box)
    return boxes
