"""DOTA (Xia et al., 2018; CAPTAIN-WHU/DOTA_devkit): one referred detection per image and class.

One text file per image: lines ``imagesource:`` and ``gsd:``, then ``x1 y1 x2 y2 x3 y3 x4 y4 class difficult`` in
pixels. A quadrilateral becomes the smallest enclosing rotated rectangle, with the angle of
`geovlm_ray.core.geometry.rotated_corners` at sense 1, or with ``boxes=horizontal`` the axis-aligned envelope of its
corners. The image size is read from the image's header; boxes must lie in the image.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Box, Example
from geovlm_ray.data.formats.base import Format, Source, Unit, short_repr
from geovlm_ray.data.formats.files import IMAGE_ENDINGS, choice_option, image_exists, question_for, split_of_folder
from geovlm_ray.data.formats.objects import check_inside, class_rows, pixel_frame
from geovlm_ray.data.formats.quads import horizontal_box, smallest_rotated_box
from geovlm_ray.data.formats.streams import file_units, lines, relative
from geovlm_ray.data.table import Row
from geovlm_ray.tasks.answers.box_dialects import MAX_COORDINATE

QUESTION = "Give me the location of every {label} in the image."
MAX_INVALID_LINES = 1000
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?", re.ASCII)


def units(source: Source) -> Iterator[Unit]:
    """The label files."""
    question_for(source, QUESTION, "")
    _horizontal(source)
    yield from file_units(source, (".txt",))


def convert(unit: Unit, source: Source) -> Iterable[Row | Unit]:
    """One record per class of a file, and a problem for each invalid line; none for a file without objects."""
    path = Path(unit.value)
    metadata: dict[str, str] = {}
    objects = _object_lines(path, source, metadata)
    first = list(itertools.islice(objects, 1))
    if not first and not source.with_empty:
        return
    image = _image_of(path, source)
    frame = pixel_frame(image, source)
    boxes: list[tuple[Box, bool]] = []
    unclear: set[str] = set()
    for number, line in enumerate(itertools.chain(first, objects)):
        try:
            if line.problem is not None:
                raise DataError(line.problem)
            box, difficult = _object(line.value, _horizontal(source))
            boxes.append((check_inside(box, frame), difficult))
        except DataError as error:
            yield replace(line, problem=f"line {line.number}: {error}")
            unclear.add(_named(str(line.value).split()[8:])[0])
            if number - len(boxes) >= MAX_INVALID_LINES:
                raise DataError(f"expected a label file, found more than {MAX_INVALID_LINES} invalid lines") from error
    if "" in unclear:
        unclear = unclear - {""} | {str(box.label) for box, _ in boxes}
    gsd = metadata.get("gsd", "")
    common = Example(
        id=unit.file.removesuffix(path.suffix),
        task="referred_object_detection",
        images=(image,),
        question="",
        target=(),
        dataset="DOTA",
        split=split_of_folder(path.parent, source),
        frame=frame,
        gsd=float(gsd) if _NUMBER.fullmatch(gsd) and 0 < float(gsd) < MAX_COORDINATE else None,
        sensor=metadata.get("imagesource"),
    )
    if not first:
        yield Row(common, is_empty=True)
    yield from class_rows(common, boxes, source, unclear)


def _object_lines(path: Path, source: Source, metadata: dict[str, str]) -> Iterator[Unit]:
    """The lines of a file that are neither blank nor metadata, which are added to ``metadata`` by their keys."""
    for line in lines(path, source):
        key, colon, value = ("", "", "") if line.problem is not None else line.value.partition(":")
        if colon and key.strip().lower() in ("imagesource", "gsd"):
            metadata[key.strip().lower()] = value.strip()
        elif line.problem is not None or line.value.strip():
            yield line


def _horizontal(source: Source) -> bool:
    return choice_option(source, "boxes", ("rotated", "horizontal")) == "horizontal"


def _object(line: str, horizontal: bool) -> tuple[Box, bool]:
    """The box of a line, and whether it is marked as difficult; class names may contain spaces."""
    words = line.split()
    numbers, (name, difficult) = words[:8], _named(words[8:])
    if len(numbers) < 8 or not all(map(_NUMBER.fullmatch, numbers)) or not name:
        raise DataError(f"expected x1 y1 x2 y2 x3 y3 x4 y4 class difficult, found {short_repr(line)}")
    corners = list(map(float, numbers))
    if max(map(abs, corners)) <= 1:
        raise DataError(f"expected corners in pixels, found fractions of the image: {short_repr(line)}")
    if max(map(abs, corners)) > MAX_COORDINATE:
        raise DataError(f"expected corners in pixels, found {short_repr(line)}")
    rotated = smallest_rotated_box(corners)  # rejects corners without area, which may have an envelope with one
    return Box(horizontal_box(corners) if horizontal else rotated, name), difficult


def _named(words: list[str]) -> tuple[str, bool]:
    """The class name, which may contain spaces, and the mark as difficult, of the words after the corners."""
    if len(words) > 1 and words[-1] in ("0", "1", "2"):
        return " ".join(words[:-1]), words[-1] != "0"
    return " ".join(words), False


def _image_of(labels: Path, source: Source) -> str:
    """The image with the stem of a label file: in the same relative folder, an ``images`` folder next to or above that,
    or the image root.
    """
    parent = Path(relative(labels, source)).parent
    folders = dict.fromkeys([parent, *(folder / "images" for folder in parent.parents), Path()])
    endings = [e for ending in IMAGE_ENDINGS for e in (ending, ending.upper())]
    for reference in ((folder / (labels.stem + ending)).as_posix() for folder in folders for ending in endings):
        if image_exists(source, reference):
            return reference
    tried = ", ".join(sorted(p.as_posix() for p in folders))
    raise DataError(f"expected an image {labels.stem}.png (or .jpg, ...) below {source.images} in {tried}, found none")


DOTA = Format(
    "DOTA: quadrilaterals to boxes=rotated or horizontal, one referred detection per image and class",
    units,
    convert,
    options={"question": QUESTION, "boxes": "rotated"},
)
