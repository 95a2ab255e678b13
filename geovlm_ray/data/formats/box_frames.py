"""Units of boxes in sources that do not state them: given by the option ``frame``, or determined from the boxes.

A reader first makes raw records, whose boxes are as written, with the unit that is usual where they are written:
percent in text (GeoChat), pixel under ``bbox_2d`` (Qwen2.5-VL), permille between tags (InternVL). `settle_frame` then
decides for the whole source, and `framed` applies the decision to each record and checks it against the size of the
image. Fractions are stored as percent.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Coords, Frame, FrameKind
from geovlm_ray.core.schema import Example, target_boxes, target_texts
from geovlm_ray.data.answer_format import in_frame
from geovlm_ray.data.formats.base import Settled, Source, Unit
from geovlm_ray.data.formats.files import choice_option, image_exists
from geovlm_ray.data.image_limits import Header
from geovlm_ray.data.images import ROOT_END, image_header, upright_size
from geovlm_ray.data.table import Row
from geovlm_ray.tasks.answers.box_dialects import DIALECTS, parse_boxes

FRAMES = ("auto", "percent", "permille", "pixel", "fraction")
FRAME_OPTIONS = {"frame": "auto", "dialect": "auto"}
"""The options of every reader whose files do not say the unit of boxes and how answers write them."""
ROUNDING = 0.02
"""Fraction of the image size by which a box may exceed it through rounding, besides one unit."""
MAX_BEYOND, MAX_BEYOND_USUAL, MAX_BEYOND_STATED = 0.05, 0.2, 0.5
"""Maximum shares of records with a box beyond the image for a unit to be possible: for any unit, for the one that is
usual for the notation, and for one that the option or the definition of the notation states."""
EXAMINED = 200
"""Records with boxes that determine the unit."""
HEAD = 20_000
"""Units of a source that are searched for them."""

# Natural logarithms: of the odds of the usual unit, and of the probability of a record with a wrong box.
_UNUSUAL = {
    ("pixel", "permille"): -5.0,
    ("percent", "pixel"): -7.0,
    ("permille", "pixel"): -7.0,
}
_OTHER, _WRONG_BOX = -9.0, -12.0
_KINDS: dict[str, FrameKind] = {"percent": "percent", "permille": "permille"}
_FRACTIONS = Frame("pixel", 1.0, 1.0)
Size = tuple[int, int]


@dataclass(frozen=True)
class RawRow:
    """A record whose boxes are in the unit of its source.

    ``usual`` is the unit that is usual for boxes written like these, ``defined`` whether the definition of the notation
    states it; ``stated`` is the one that the record states, if any: one of `FRAMES`, or a frame in pixels of a stated
    image size.
    """

    row: Row
    usual: str = "percent"
    stated: str | Frame | None = None
    defined: bool = False


RawReader = Callable[[Unit, Source], Iterable[RawRow | Unit]]


@dataclass(frozen=True)
class BoxExtent:
    """The largest coordinates of a record's boxes, whether all are integers, and the size of its image if known.

    ``id`` is that of the record.
    """

    id: str
    x: float
    y: float
    lowest: float
    integers: bool
    size: Size | None

    def scale(self, kind: str) -> tuple[float, float] | None:
        """Width and height of the image in a unit; None if they are not known."""
        sides = {"percent": 100.0, "permille": 1000.0, "fraction": 1.0}
        return self.size if kind == "pixel" else (sides[kind], sides[kind])

    def fits(self, kind: str) -> bool:
        """Whether boxes in this unit lie inside the image, up to rounding."""
        scale = self.scale(kind)
        if scale is None or (kind == "fraction" and self.integers):
            return False
        slack = [ROUNDING * side + (kind != "fraction") for side in scale]
        return self.x <= scale[0] + slack[0] and self.y <= scale[1] + slack[1] and self.lowest >= -max(slack)


def settle_frame(
    source: Source, units: Iterable[Unit], read: RawReader, possible: Sequence[str] = FRAMES[1:]
) -> Settled:
    """The unit of a source's boxes: the one given, if it can be true, else the most probable of the possible ones.

    Every unit explains boxes anywhere in the image; the smaller the image is in a unit, the likelier are boxes that
    stay inside it. The usual unit of a notation needs less evidence than the others.

    Raises:
        DataError: the given unit, or every possible one, puts boxes beyond the image.
    """
    given = choice_option(source, "frame", FRAMES)
    choice_option(source, "dialect", ("auto", *DIALECTS))
    extents, usual, defined = _extents(_head(source, units, read), source)
    if not extents:
        return Settled()
    shares = dict.fromkeys(FRAMES[1:], MAX_BEYOND)
    shares[usual] = MAX_BEYOND_STATED if defined else MAX_BEYOND_USUAL
    beyond = {kind: [e for e in extents if not e.fits(kind)] for kind in shares}
    fitting = [kind for kind, share in shares.items() if len(beyond[kind]) <= share * len(extents)]
    largest = max(max(e.x, e.y) for e in extents)
    found = f"boxes in {len(extents):,} of the first records, with coordinates up to {largest:g}"
    if given != "auto":
        if len(beyond[given]) > MAX_BEYOND_STATED * len(extents):
            others = " or ".join(f"frame={kind}" for kind in fitting)
            cause = _unknown_size(extents) if given == "pixel" else ""
            raise DataError(
                f"{source.path}: expected boxes inside the image with frame={given}, found {found}{cause}"
                + (f"; {others} could be true" if others else "")
                + _first_of(beyond[given])
            )
        return Settled()
    fitting = [kind for kind in fitting if kind in possible]
    if not fitting:
        others = " or ".join(f"frame={k}" for k in FRAMES[1:] if k not in possible)
        raise DataError(
            f"{source.path}: expected boxes in {', '.join(possible)}, found {found}{_unknown_size(extents)}; give "
            f"their unit with {others or 'frame='}{_first_of(beyond[usual])}"
        )
    if "pixel" in possible and usual not in fitting and _unknown_size(extents):
        raise DataError(
            f"{source.path}: expected images or the option frame, found {found}{_unknown_size(extents)}; give "
            f"{' or '.join(f'frame={k}' for k in FRAMES[1:] if k == 'pixel' or k in fitting)}"
        )
    is_defined = defined and usual in fitting
    kind = usual if is_defined else max(fitting, key=lambda kind: _log_probability(kind, usual, extents))
    alternatives = [k for k in fitting if k != kind]
    doubt = f"; if they are not, give {' or '.join(f'frame={k}' for k in alternatives)}" if alternatives else ""
    note = f"frame={kind}: found {found}; {_reason(kind, usual, fitting)}{doubt}"
    return Settled({"frame": kind}, (note,))


def framed(unit: Unit, items: Iterable[RawRow | Unit], source: Source) -> Iterator[Row | Unit]:
    """Raw records with their boxes in order, in the frame that they state or that of the option ``frame``.

    A record of several that has a problem of `in_frame_of_source` is a unit with that problem. The first record keeps
    the embedded images, which all of the unit share.
    """
    items = list(items)
    files_kept = False
    for item in items:
        if isinstance(item, Unit):
            yield item
            continue
        try:
            row = in_frame_of_source(item, source)
        except DataError as error:
            if len(items) == 1:
                raise
            yield replace(unit, value=item.row.example.question, problem=f"{item.row.example.id}: {error}")
        else:
            yield replace(row, files={}) if files_kept else row
            files_kept = True


def in_frame_of_source(raw: RawRow, source: Source) -> Row:
    """One raw record in its frame, as `framed`.

    Raises:
        DataError: a box lies beyond the image in this unit, or the image is absent or to be displayed rotated.
    """
    row = raw.row
    example = row.example
    coords = _coords(example)
    if not coords:
        return replace(row, example=replace(example, frame=Frame()))
    if isinstance(raw.stated, Frame):
        return replace(row, example=replace(example, frame=raw.stated))
    kind = raw.stated or choice_option(source, "frame", FRAMES)
    if kind == "auto":
        raise DataError("boxes: expected their unit to be known; give frame=percent, permille, pixel or fraction")
    size = image_size_of(row, source, required=kind == "pixel")
    extent = _extent(coords, size, example.id)
    if not extent.fits(kind):
        width, height = extent.scale(kind) or (0, 0)
        raise DataError(
            f"boxes: expected coordinates inside the image, {width:g} x {height:g} in {kind}, found up to "
            f"{extent.x:g}, {extent.y:g} and down to {extent.lowest:g}; is frame={kind} right?"
        )
    if kind == "fraction":
        return replace(row, example=in_frame(replace(example, frame=_FRACTIONS), Frame()))
    frame = Frame("pixel", float(size[0]), float(size[1])) if kind == "pixel" and size else Frame(_KINDS[kind])
    return replace(row, example=replace(example, frame=frame))


def image_size_of(row: Row, source: Source, *, required: bool) -> Size | None:
    """Size in pixels of the last image of a record, which boxes refer to; None if it is absent and not ``required``.

    Raises:
        DataError: the image is absent or unreadable, or is to be displayed rotated.
    """
    if not row.example.images:
        return None
    name = row.example.images[-1]
    if name in row.files:
        header = image_header(row.files[name])
    elif required or image_exists(source, name):
        header = _header(f"{source.images}{ROOT_END}{name}")
    else:
        return None
    check_upright(name, header)
    return upright_size(header)


def check_upright(image: str, header: Header, stated: tuple[float, float] | None = None) -> None:
    """Check that boxes refer to an image as it is displayed.

    Raises:
        DataError: the image has an EXIF rotation, and the image size that the boxes come with, if any, does not tell
            whether they refer to the image as stored or as displayed.
    """
    displayed, stored = upright_size(header), (header.width, header.height)
    if header.orientation != 1 and not (stated == displayed != stored):
        raise DataError(
            f"image {image}: expected an upright image, because boxes may refer to it as stored or as displayed; found "
            f"the EXIF orientation {header.orientation}. Rotate the image and its boxes, and remove the tag"
        )


@lru_cache(maxsize=1024)
def _header(reference: str) -> Header:
    return image_header(reference)


def _coords(example: Example) -> list[Coords]:
    """The boxes of a record's target and those written in its texts."""
    texts = [example.question, *target_texts(example.target)]
    written = [box for text in texts for dialect in ("brackets", "geochat") for box in _boxes_in(text, dialect)]
    return [*(box.coords for box in target_boxes(example.target)), *written]


def _boxes_in(text: str, dialect: str) -> tuple[tuple[float, ...], ...]:
    parsed = parse_boxes(text, dialect) if "[" in text or "{" in text else None
    return parsed.boxes if parsed else ()


def _head(source: Source, units: Iterable[Unit], read: RawReader) -> Iterator[RawRow]:
    """The raw records of the first units, without those that cannot be read."""
    for unit in itertools.islice(units, HEAD):
        if unit.problem is None:
            with suppress(DataError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
                yield from [item for item in read(unit, source) if isinstance(item, RawRow)]


def _extents(rows: Iterable[RawRow], source: Source) -> tuple[list[BoxExtent], str, bool]:
    """The extents of the first records with boxes in no stated unit, the unit that is usual for most, if it is defined.

    Records without a readable image only count if no record has one.
    """
    extents: list[BoxExtent] = []
    usual: Counter[tuple[str, bool]] = Counter()
    for raw in rows:
        if raw.stated is None and (coords := _coords(raw.row.example)):
            extents.append(_extent(coords, _size_if_readable(raw.row, source), raw.row.example.id))
            usual[raw.usual, raw.defined] += 1
        if len(extents) == EXAMINED:
            break
    sized = [extent for extent in extents if extent.size is not None]
    return sized or extents, *(usual.most_common(1)[0][0] if usual else ("percent", False))


def _size_if_readable(row: Row, source: Source) -> Size | None:
    try:
        return image_size_of(row, source, required=False)
    except DataError:
        return None


def _extent(coords: Sequence[Coords], size: Size | None, id: str) -> BoxExtent:
    """The extent of boxes; of rotated ones only that of their centres, since they may reach beyond the image."""
    xs, ys = [], []
    for box in coords:
        x1, y1, x2, y2 = box[:4]
        xs += [x1, x2] if len(box) == 4 else [(x1 + x2) / 2]
        ys += [y1, y2] if len(box) == 4 else [(y1 + y2) / 2]
    integers = all(float(v).is_integer() for box in coords for v in box)
    return BoxExtent(id, max(xs), max(ys), min(*xs, *ys), integers, size)


def _log_probability(kind: str, usual: str, extents: Sequence[BoxExtent]) -> float:
    """Logarithm of the probability of the extents, up to a constant: uniform over the image, in the given unit."""
    total = 0.0 if kind == usual else _UNUSUAL.get((usual, kind), _OTHER)
    for extent in extents:
        scale = extent.scale(kind)
        total += _WRONG_BOX if scale is None or not extent.fits(kind) else -math.log(scale[0] * scale[1])
    return total


def _first_of(beyond: Sequence[BoxExtent]) -> str:
    """The first record with a box beyond its image, for errors."""
    return f"; the first beyond is record {beyond[0].id!r}, up to {beyond[0].x:g}, {beyond[0].y:g}" if beyond else ""


def _unknown_size(extents: Sequence[BoxExtent]) -> str:
    unknown = sum(e.size is None for e in extents)
    return f" and no readable image for {unknown:,} of them" if unknown else ""


def _reason(kind: str, usual: str, fitting: Sequence[str]) -> str:
    if fitting == [kind]:
        return f"only {kind} puts them inside the image"
    if kind == usual:
        return f"{kind} is usual for boxes written like these"
    return f"{kind} is the likeliest" + (f"; in {usual} all would lie in a corner" if usual in fitting else "")
