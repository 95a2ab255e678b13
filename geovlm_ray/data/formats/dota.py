"""DOTA (Xia et al., 2018; CAPTAIN-WHU/DOTA_devkit): one referred detection per image and class.

One text file per image: lines ``imagesource:`` and ``gsd:``, then ``x1 y1 x2 y2 x3 y3 x4 y4 class difficult`` in
pixels. A quadrilateral becomes the smallest enclosing rotated rectangle, with the angle of
`geovlm_ray.core.geometry.rotated_corners` at sense 1, or with ``boxes=horizontal`` the axis-aligned envelope of its
corners. The image size is read from the image's header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example
from geovlm_ray.data.formats.base import Format, Source, Unit, short_repr
from geovlm_ray.data.formats.files import IMAGE_ENDINGS, choice_option, image_exists, question_for, split_of_folder
from geovlm_ray.data.formats.quads import horizontal_box, smallest_rotated_box
from geovlm_ray.data.formats.streams import file_units, lines, relative
from geovlm_ray.data.images import ROOT_END, image_size
from geovlm_ray.data.table import UNCLEAR, Row
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
    """One record per class of a file, and a problem for each invalid line."""
    path = Path(unit.value)
    objects_by_class, metadata, bad = _read(path, source)
    yield from bad
    unclear = {_named(str(line.value).split()[8:])[0] for line in bad}
    if "" in unclear:
        unclear = unclear - {""} | objects_by_class.keys()
    if not objects_by_class:
        return
    image = _image_of(path, source)
    width, height = image_size(f"{source.images}{ROOT_END}{image}")
    gsd = metadata.get("gsd", "")
    for name, objects in objects_by_class.items():
        example = Example(
            id=f"{unit.file.removesuffix(path.suffix)}/{name}",
            task="referred_object_detection",
            images=(image,),
            question=question_for(source, QUESTION, name),
            target=tuple(box for box, _ in objects),
            dataset="DOTA",
            split=split_of_folder(path.parent, source),
            frame=Frame("pixel", width, height),
            gsd=float(gsd) if _NUMBER.fullmatch(gsd) and 0 < float(gsd) < MAX_COORDINATE else None,
            sensor=metadata.get("imagesource"),
        )
        difficult = [i for i, (_, is_difficult) in enumerate(objects) if is_difficult]
        extra = {key: value for key, value in (("difficult", difficult), (UNCLEAR, sorted(unclear))) if value}
        yield Row(example, extra=extra, parts=len(objects))


def _read(path: Path, source: Source) -> tuple[dict[str, list[tuple[Box, bool]]], dict[str, str], list[Unit]]:
    """A file's boxes by class, with whether each is difficult; its metadata lines by key; a unit for each bad line."""
    objects_by_class: dict[str, list[tuple[Box, bool]]] = {}
    metadata: dict[str, str] = {}
    bad = []
    horizontal = _horizontal(source)
    for line in lines(path, source):
        if line.problem is not None:
            bad.append(line)
            continue
        key, colon, value = line.value.partition(":")
        if colon and key.strip().lower() in ("imagesource", "gsd"):
            metadata[key.strip().lower()] = value.strip()
        elif line.value.strip():
            try:
                box, difficult = _object(line.value, horizontal)
            except DataError as error:
                bad.append(replace(line, problem=f"line {line.number}: {error}"))
                if len(bad) > MAX_INVALID_LINES:
                    raise DataError(
                        f"expected a label file, found more than {MAX_INVALID_LINES} invalid lines"
                    ) from error
                continue
            objects_by_class.setdefault(str(box.label), []).append((box, difficult))
    return objects_by_class, metadata, bad


def _horizontal(source: Source) -> bool:
    return choice_option(source, "boxes", ("rotated", "horizontal")) == "horizontal"


def _object(line: str, horizontal: bool) -> tuple[Box, bool]:
    """The box of a line, and whether it is marked as difficult; class names may contain spaces."""
    words = line.split()
    numbers, (name, difficult) = words[:8], _named(words[8:])
    if len(numbers) < 8 or not all(map(_NUMBER.fullmatch, numbers)) or not name:
        raise DataError(f"expected x1 y1 x2 y2 x3 y3 x4 y4 class difficult, found {short_repr(line)}")
    corners = list(map(float, numbers))
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
