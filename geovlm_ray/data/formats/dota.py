"""DOTA (Xia et al., 2018; CAPTAIN-WHU/DOTA_devkit): one referred detection for an image and class.

A text file an image: lines ``imagesource:`` and ``gsd:``, then ``x1 y1 x2 y2 x3 y3 x4 y4 class difficult`` in pixels.
A quadrilateral becomes the smallest rectangle around it, turned as `geovlm_ray.core.geometry.rotated_corners` does with
sense 1, or with ``boxes=horizontal`` the envelope of its corners. The size of the image is read from its header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example
from geovlm_ray.data.formats.base import Format, Source, Unit, shown
from geovlm_ray.data.formats.files import IMAGE_ENDINGS, chosen, is_there, question_about, split_of_folder
from geovlm_ray.data.formats.quads import horizontal_box, rotated_box
from geovlm_ray.data.formats.streams import file_units, lines, relative
from geovlm_ray.data.images import ROOT_END, image_size
from geovlm_ray.data.table import Row
from geovlm_ray.tasks.boxes import MAX_COORDINATE

QUESTION = "Give me the location of every {label} in the image."
MOST_BAD = 1000
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?", re.ASCII)


@dataclass
class Objects:
    """The objects of one class in a file; ``difficult`` has the numbers, from 0, of those that are marked so."""

    boxes: list[Box] = field(default_factory=list)
    difficult: list[int] = field(default_factory=list)


def units(source: Source) -> Iterator[Unit]:
    """The files of labels.

    Raises:
        DataError: there is none, or an option has a wrong value.
    """
    question_about(source, QUESTION, "")
    _horizontal(source)
    yield from file_units(source, (".txt",))


def convert(unit: Unit, source: Source) -> Iterable[Row | Unit]:
    """A record for every class of a file, and a problem for every line that is no object."""
    path = Path(unit.value)
    found, about, bad = _read(path, source)
    yield from bad
    if not found:
        return
    image = _image_of(path, source)
    width, height = image_size(f"{source.images}{ROOT_END}{image}")
    gsd = about.get("gsd", "")
    for name, objects in found.items():
        example = Example(
            id=f"{unit.file.removesuffix(path.suffix)}/{name}",
            task="referred_object_detection",
            images=(image,),
            question=question_about(source, QUESTION, name),
            target=tuple(objects.boxes),
            dataset="DOTA",
            split=split_of_folder(path.parent, source),
            frame=Frame("pixel", width, height),
            gsd=float(gsd) if _NUMBER.fullmatch(gsd) and 0 < float(gsd) < MAX_COORDINATE else None,
            sensor=about.get("imagesource"),
        )
        extra = {"difficult": objects.difficult} if objects.difficult else {}
        yield Row(example, extra=extra, parts=len(objects.boxes))


def _read(path: Path, source: Source) -> tuple[dict[str, Objects], dict[str, str], list[Unit]]:
    """A file's objects by class, its header, and its bad lines."""
    found: dict[str, Objects] = {}
    about: dict[str, str] = {}
    bad = []
    horizontal = _horizontal(source)
    for line in lines(path, source):
        if line.problem is not None:
            bad.append(line)
            continue
        key, colon, value = line.value.partition(":")
        if colon and key.strip().lower() in ("imagesource", "gsd"):
            about[key.strip().lower()] = value.strip()
        elif line.value.strip():
            try:
                box, difficult = _object(line.value, horizontal)
            except DataError as error:
                bad.append(replace(line, problem=f"line {line.number}: {error}"))
                if len(bad) > MOST_BAD:
                    raise DataError(
                        f"expected a file of labels, found more than {MOST_BAD} lines of another form"
                    ) from error
                continue
            objects = found.setdefault(str(box.label), Objects())
            objects.difficult += [len(objects.boxes)] if difficult else []
            objects.boxes.append(box)
    return found, about, bad


def _horizontal(source: Source) -> bool:
    return chosen(source, "boxes", ("rotated", "horizontal")) == "horizontal"


def _object(line: str, horizontal: bool) -> tuple[Box, bool]:
    """The box of a line, and whether it is marked as difficult; names of classes may hold spaces."""
    words = line.split()
    numbers, name = words[:8], words[8:]
    difficult = len(name) > 1 and name[-1] in ("0", "1", "2") and name.pop() != "0"
    if len(numbers) < 8 or not all(map(_NUMBER.fullmatch, numbers)) or not name:
        raise DataError(f"expected x1 y1 x2 y2 x3 y3 x4 y4 class difficult, found {shown(line)}")
    corners = list(map(float, numbers))
    if max(map(abs, corners)) > MAX_COORDINATE:
        raise DataError(f"expected corners in pixels, found {shown(line)}")
    turned = rotated_box(corners)  # refuses corners without an area, which may yet have an envelope with one
    return Box(horizontal_box(corners) if horizontal else turned, " ".join(name)), difficult


def _image_of(labels: Path, source: Source) -> str:
    """The image of a file of labels: of its name, below the image root where the labels lie, or in an
    ``images`` beside or above them.

    Raises:
        DataError: there is none.
    """
    above = Path(relative(labels, source)).parent
    places = dict.fromkeys([above, *(folder / "images" for folder in above.parents), Path()])
    for place in places:
        for ending in IMAGE_ENDINGS:
            for reference in ((place / (labels.stem + e)).as_posix() for e in (ending, ending.upper())):
                if is_there(source, reference):
                    return reference
    tried = ", ".join(sorted(p.as_posix() for p in places))
    raise DataError(f"expected an image {labels.stem}.png (or .jpg, ...) below {source.images} in {tried}, found none")


DOTA = Format(
    "DOTA: boxes=rotated or horizontal from quadrilaterals, a referred detection for each image and class",
    units,
    convert,
    options={"question": QUESTION, "boxes": "rotated"},
)
