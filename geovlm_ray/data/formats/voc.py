"""Pascal VOC XML (Everingham et al., 2010) and its derivatives in remote sensing: one referred detection per class.

- VOC, DIOR, NWPU VHR-10 and others: ``object`` with ``name`` and ``bndbox``.
- DIOR-RSVG (ZhanYang-nwpu/RSVG-pytorch): each ``object`` also has a ``description``, and gives one visual grounding.
  Its lists of splits number the objects.
- DIOR-R and roLabelImg: ``robndbox`` with the corners ``x_left_top`` etc., or with ``cx, cy, w, h, angle`` in radians.
- FAIR1M: ``objects/object`` with ``possibleresult/name`` and ``points/point`` as ``x,y``.
- HRSC2016: ``HRSC_Object`` with ``mbox_cx, mbox_cy, mbox_w, mbox_h, mbox_ang`` in radians and ``Class_ID``.

In VOC the first pixel is 1, so that xmin and ymin are one larger than in other formats; with ``first_pixel=auto`` it is
0 if a bndbox of the source begins there. Angles turn clockwise.
"""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import rotated_box, rotated_corners
from geovlm_ray.core.schema import Box, Example
from geovlm_ray.data.formats.base import Format, Settled, Source, Unit, short_repr
from geovlm_ray.data.formats.files import choice_option, normalize_split
from geovlm_ray.data.formats.objects import (
    OPTIONS,
    check_inside,
    check_options,
    class_rows,
    image_of_labels,
    pixel_frame,
    quad_box,
)
from geovlm_ray.data.formats.prompts import question_of
from geovlm_ray.data.formats.quads import horizontal_box
from geovlm_ray.data.formats.record_fields import split_of_file
from geovlm_ray.data.formats.split_lists import UNLISTED, SplitLists, split_lists
from geovlm_ray.data.formats.streams import file_units
from geovlm_ray.data.table import Row
from geovlm_ray.tasks.answers.box_dialects import MAX_COORDINATE

FIRST_PIXEL = ("auto", "0", "1")
MAX_FILE_BYTES = 4 * 2**20
HEAD = 1_000
"""Files that are searched for a box that begins at pixel 0."""
CORNERS = ("left_top", "right_top", "right_bottom", "left_bottom")
HRSC_CLASS = "ship"
KNOWN_TAGS = frozenset(
    ("name", "bndbox", "robndbox", "difficult", "description", "points", "possibleresult", "type", "angle", "pose")
)
_DECLARATIONS = (b"<!DOCTYPE", b"<!ENTITY")


def units(source: Source) -> Iterator[Unit]:
    """The XML files, each with its split if lists name it, and with those of its objects if lists number objects."""
    check_options(source)
    choice_option(source, "first_pixel", FIRST_PIXEL)
    lists = split_lists(source)
    by_object = _object_splits(source, lists)
    for unit in file_units(source, (".xml",)):
        split = UNLISTED if by_object else lists.of(unit.file) if lists else None
        value = (unit.value, split, by_object.get(unit.file, ()))
        yield replace(unit, value=value) if unit.problem is None else unit


def settle(source: Source) -> Settled:
    """The number of the first pixel, and a note if lists of splits number the objects."""
    notes = _split_notes(source)
    if choice_option(source, "first_pixel", FIRST_PIXEL) != "auto":
        return Settled({}, notes)
    lowest = math.inf
    for unit in itertools.islice(file_units(source, (".xml",)), HEAD):
        with suppress(DataError, OSError):
            for box in _parse(Path(unit.value)).iter("bndbox") if unit.problem is None else ():
                for side in ("xmin", "ymin"):
                    with suppress(DataError):
                        lowest = min(lowest, _child(box, side))
    if lowest is math.inf:
        return Settled({"first_pixel": "1"}, notes)
    if lowest < 1:
        note = "first_pixel=0: a bndbox begins at 0, before VOC's first pixel 1"
        return Settled({"first_pixel": "0"}, (note, *notes))
    return Settled({"first_pixel": "1"}, ("first_pixel=1, as in VOC: no bndbox begins before it", *notes))


def _split_notes(source: Source) -> tuple[str, ...]:
    """Whether lists of splits number the objects, and how many pictures are then in several splits."""
    by_object = _object_splits(source, split_lists(source))
    if not by_object:
        return ()
    shared = sum(len({*splits} - {UNLISTED}) > 1 for splits in by_object.values())
    note = "splits: the lists number the objects, counted from 0 over the sorted XML files, as in DIOR-RSVG"
    leak = (
        f"{shared:,} of {len(by_object):,} pictures have objects in several splits, so that training shows pictures of "
        "the others; `data validate` sets such training records aside"
    )
    return (f"{note}; {leak}",) if shared else (note,)


def _object_splits(source: Source, lists: SplitLists | None) -> dict[str, tuple[str, ...]]:
    """The splits of the objects of each XML file, if the lists number objects with descriptions; else empty.

    Raises:
        DataError: a file cannot be read, so that its objects cannot be counted, or the lists do not suit the files.
    """
    units = list(file_units(source, (".xml",))) if lists else []
    if not lists or not lists.are_numbers(unit.file for unit in units):
        return {}
    counts: dict[str, int] = {}
    problem = ""
    described = False
    for unit in units:
        try:
            if unit.problem is not None:
                raise DataError(unit.problem)
            elements = _elements(_parse(Path(unit.value)))
        except (DataError, OSError) as error:
            names = ", ".join(lists.names)
            problem = problem or f"{unit.file}: expected an XML file, whose objects {names} number, found: {error}"
            continue
        counts[unit.file] = len(elements)
        described = described or any(element.find("description") is not None for element in elements)
    if not described:
        return {}
    if problem:
        raise DataError(f"{source.path}: {problem}")
    return lists.of_objects(counts)


def _elements(root: ET.Element) -> list[ET.Element]:
    """The annotated objects of a file."""
    return [*root.findall("object"), *root.findall("objects/object"), *root.iter("HRSC_Object")]


def convert(unit: Unit, source: Source) -> Iterable[Row | Unit]:
    """The records of a file, and a problem for each invalid object; none if it has no objects."""
    file, split, object_splits = unit.value
    root = _parse(Path(file))
    elements = _elements(root)
    if root.tag not in ("annotation", "Annotation", "HRSC_Image"):
        raise DataError(f"expected an XML file of annotation or HRSC_Image, found {short_repr(root.tag)}")
    if not elements and not source.with_empty:
        return
    name = next(filter(None, map(root.findtext, ("source/filename", "filename", "Img_FileName"))), "")
    image = _image(unit.file, name.strip(), source)
    frame = pixel_frame(image, source, _stated_size(root))
    boxes: list[tuple[Box, bool]] = []
    unclear: set[str] = set()
    described: list[tuple[int, str, Box]] = []
    unread: list[str] = []
    for number, element in enumerate(elements, 1):
        description = " ".join((element.findtext("description") or "").split())
        try:
            if object_splits and not description:
                raise DataError("description: expected one, as in DIOR-RSVG, found none")
            box = check_inside(_box(element, source), frame)
        except DataError as error:
            yield Unit(unit.file, number, ET.tostring(element, "unicode"), f"object {number}: {error}")
            unclear.add(_name(element))
            continue
        if description:
            described.append((number, description, box))
        boxes.append((box, (element.findtext("difficult") or "0").strip() == "1"))
        unread += [child.tag for child in element if child.tag not in KNOWN_TAGS and element.tag == "object"]
    common = Example(
        id=unit.file.removesuffix(".xml"),
        task="visual_grounding",
        images=(image,),
        question="",
        target=(),
        dataset=(root.findtext("source/database") or "").strip() or source.folder.resolve().name,
        split=normalize_split(split) if split else split_of_file(unit.file, source),
        frame=frame,
        gsd=_gsd(root),
    )
    if "" in unclear:
        unclear = unclear - {""} | {str(box.label) for box, _ in boxes}
    if not elements:
        yield Row(replace(common, task="referred_object_detection"), is_empty=True)
    rows = _grounding(common, described, object_splits) if described else class_rows(common, boxes, source, unclear)
    yield from (replace(row, unread=() if i else tuple(dict.fromkeys(unread))) for i, row in enumerate(rows))


def _grounding(
    common: Example, described: Iterable[tuple[int, str, Box]], object_splits: Sequence[str]
) -> Iterator[Row]:
    for number, description, box in described:
        split = object_splits[number - 1] if object_splits else common.split
        question, target = question_of(description), (box,)
        yield Row(replace(common, id=f"{common.id}/{number}", question=question, target=target, split=split))


def _parse(path: Path) -> ET.Element:
    """The root of an XML file.

    Raises:
        DataError: the file is too large, is not XML, or declares entities.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise DataError(f"expected an XML file of at most {MAX_FILE_BYTES} bytes, found {path.stat().st_size}")
    content = path.read_bytes()
    if any(declaration in content for declaration in _DECLARATIONS):
        raise DataError("expected an XML file without DOCTYPE and entities, found one")
    try:
        return ET.fromstring(content)
    except (ET.ParseError, ValueError, LookupError) as error:
        raise DataError(f"expected an XML file: {error}") from error


def _image(file: str, name: str, source: Source) -> str:
    """The image that a file names, else the one with the file's stem."""
    try:
        return image_of_labels(file, source, Path(name.replace("\\", "/")).name)
    except DataError:
        return image_of_labels(file, source)


def _stated_size(root: ET.Element) -> tuple[float, float] | None:
    """Width and height that a file states; None if they are absent or 0."""
    for tags in (("size/width", "size/height"), ("Img_SizeWidth", "Img_SizeHeight")):
        texts = [root.findtext(tag) for tag in tags]
        if all(texts):
            width, height = (_number(str(text), "size") for text in texts)
            return (width, height) if width > 0 and height > 0 else None
    return None


def _gsd(root: ET.Element) -> float | None:
    """Metres per pixel of HRSC2016, if it states them."""
    text = (root.findtext("Img_Resolution") or "").strip()
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < 1e4 else None


def _name(element: ET.Element) -> str:
    """The class of an object; empty if it has none."""
    if element.tag == "HRSC_Object":
        return HRSC_CLASS
    return (element.findtext("name") or element.findtext("possibleresult/name") or "").strip()


def _box(element: ET.Element, source: Source) -> Box:
    """The box of an object, with its class as label."""
    name = _name(element)
    if element.tag == "HRSC_Object":
        return _rotated([_child(element, f"mbox_{key}") for key in ("cx", "cy", "w", "h", "ang")], name, source)
    if not name:
        raise DataError("name: expected a class, found none")
    if (points := element.find("points")) is not None:
        pairs = [(point.text or "").split(",") for point in points.findall("point")]
        corners = [_number(text, "point") for pair in pairs for text in pair]
        if len(pairs) == 5 and pairs[0] == pairs[4]:
            corners = corners[:8]
        if len(corners) < 6 or len(corners) % 2 or any(len(pair) != 2 for pair in pairs):
            raise DataError(f"points: expected corners x,y, found {short_repr(pairs)}")
        return quad_box(corners, name, source)
    if (rotated := element.find("robndbox")) is not None:
        if rotated.find("cx") is not None:
            return _rotated([_child(rotated, key) for key in ("cx", "cy", "w", "h", "angle")], name, source)
        return quad_box([_child(rotated, f"{axis}_{corner}") for corner in CORNERS for axis in "xy"], name, source)
    box = element.find("bndbox")
    if box is None:
        raise DataError(f"expected bndbox, robndbox or points, found {', '.join(child.tag for child in element)}"[:300])
    first = int(choice_option(source, "first_pixel", FIRST_PIXEL) == "1")
    xmin, ymin, xmax, ymax = (_child(box, side) for side in ("xmin", "ymin", "xmax", "ymax"))
    x1, y1, x2, y2 = Box((xmin, ymin, xmax, ymax)).coords
    return Box((max(x1 - first, 0.0), max(y1 - first, 0.0), x2, y2), name)


def _rotated(values: list[float], name: str, source: Source) -> Box:
    """The box of centre, size and angle in radians, with an angle in [-45, 45] degrees."""
    cx, cy, width, height, angle = values
    if width <= 0 or height <= 0:
        raise DataError(f"expected a box with positive width and height, found {width:g} x {height:g}")
    row = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2, math.degrees(angle))
    corners = rotated_corners(np.array([row]))[0].ravel().tolist()
    if choice_option(source, "boxes", ("rotated", "horizontal")) == "horizontal":
        return Box(horizontal_box(corners), name)
    return Box(rotated_box(corners) or row, name)


def _child(element: ET.Element, tag: str) -> float:
    text = element.findtext(tag)
    if text is None:
        raise DataError(f"{element.tag}: expected {tag}, found {', '.join(child.tag for child in element)}"[:300])
    return _number(text, tag)


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise DataError(f"{name}: expected a number, found {short_repr(text)}") from error
    if not math.isfinite(value) or abs(value) > MAX_COORDINATE:
        raise DataError(f"{name}: expected a number of pixels, found {short_repr(text)}")
    return value


VOC = Format(
    "Pascal VOC XML, also DIOR, DIOR-R, DIOR-RSVG, FAIR1M, HRSC2016: one referred detection per image and class, or one"
    " grounding per description",
    units,
    convert,
    options={**OPTIONS, "first_pixel": FIRST_PIXEL[0]},
    settle=settle,
)
