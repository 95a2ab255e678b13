"""Annotated objects of one image, as in VOC and YOLO: one referred detection per class."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example
from geovlm_ray.data.formats.base import Source, image_reference
from geovlm_ray.data.formats.box_frames import check_upright
from geovlm_ray.data.formats.files import IMAGE_ENDINGS, IMAGE_FOLDERS, choice_option, image_exists, question_for
from geovlm_ray.data.formats.quads import horizontal_box, smallest_rotated_box
from geovlm_ray.data.images import ROOT_END, image_header, upright_size
from geovlm_ray.data.table import UNCLEAR, Row

QUESTION = "Give me the location of every {label} in the image."
BOXES = ("rotated", "horizontal")
OPTIONS = {"question": QUESTION, "boxes": BOXES[0]}
LABEL_FOLDERS = ("labels", "label", "annotations", "labeltxt", "labelxml", "oriented bounding boxes")
"""Folders of label files; the image of a label file is in a folder ``images`` or the like in their place."""
MAX_OUTSIDE = 0.02
"""Fraction of the image size by which a horizontal box may exceed the image."""


def check_options(source: Source) -> None:
    """Check the options of `OPTIONS`.

    Raises:
        DataError: one of them is invalid.
    """
    question_for(source, QUESTION, "")
    choice_option(source, "boxes", BOXES)


def quad_box(corners: Sequence[float], label: str, source: Source) -> Box:
    """The box of corners ``x, y, x, y, ...``: rotated, or the horizontal envelope with ``boxes=horizontal``.

    Raises:
        DataError: the corners enclose no area.
    """
    rotated = smallest_rotated_box(corners)
    if choice_option(source, "boxes", BOXES) == "rotated" and len(corners) == 8:
        return Box(rotated, label)
    return Box(horizontal_box(corners), label)


def image_of_labels(file: str, source: Source, name: str = "") -> str:
    """The image of a label file, with its stem or the given name: beside it, or in a folder of images.

    Raises:
        DataError: there is none.
    """
    path = PurePosixPath(file)
    parts = path.parent.parts
    swapped = [
        PurePosixPath(*parts[:i], images, *parts[i + 1 :])
        for i, part in enumerate(parts)
        for images in IMAGE_FOLDERS
        if part.lower() in LABEL_FOLDERS
    ]
    above = [folder / images for folder in path.parents for images in IMAGE_FOLDERS]
    folders = list(dict.fromkeys([path.parent, *swapped, *above, PurePosixPath(), *map(PurePosixPath, IMAGE_FOLDERS)]))
    named = PurePosixPath(name)
    stem = named.stem if name else path.stem
    endings = [named.suffix] if named.suffix.lower() in IMAGE_ENDINGS else []
    endings += [e for ending in IMAGE_ENDINGS for e in (ending, ending.upper())]
    for folder in folders:
        for ending in dict.fromkeys(endings):
            reference = image_reference((folder / f"{stem}{ending}").as_posix())
            if image_exists(source, reference):
                return reference
    tried = ", ".join(sorted(p.as_posix() for p in folders))
    raise DataError(f"expected an image {stem}.png (or .jpg, ...) below {source.images} in {tried}, found none")


def pixel_frame(image: str, source: Source, stated: tuple[float, float] | None = None) -> Frame:
    """The frame in pixels of an image; a stated size must be that of the image.

    Raises:
        DataError: the image is unreadable, has another size, or is to be displayed rotated.
    """
    header = image_header(f"{source.images}{ROOT_END}{image}")
    check_upright(image, header, stated)
    size = upright_size(header)
    if stated is not None and stated != size:
        raise DataError(f"size: expected that of {image}, {size[0]} x {size[1]}, found {stated[0]:g} x {stated[1]:g}")
    return Frame("pixel", float(size[0]), float(size[1]))


def class_rows(
    common: Example, boxes: Sequence[tuple[Box, bool]], source: Source, unclear: Collection[str] = ()
) -> Iterator[Row]:
    """One referred detection per class of an image's boxes, each given with whether it is marked as difficult.

    ``common`` has the fields that all records of the image share; ``unclear`` are the classes of its invalid objects.
    Boxes are put in order.
    """
    by_class: dict[str, list[tuple[Box, bool]]] = {}
    for box, difficult in boxes:
        by_class.setdefault(str(box.label), []).append((box, difficult))
    for name, members in by_class.items():
        marked = [i for i, (_, is_difficult) in enumerate(members) if is_difficult]
        example = replace(
            common,
            id=f"{common.id}/{name}",
            task="referred_object_detection",
            question=question_for(source, QUESTION, name),
            target=tuple(box for box, _ in members),
        )
        extra: dict[str, Any] = {"difficult": marked} if marked else {}
        yield Row(example, extra=extra | ({UNCLEAR: sorted(unclear)} if unclear else {}), parts=len(members))


def check_inside(box: Box, frame: Frame) -> Box:
    """The box, if it is a horizontal one inside the image up to rounding, or a rotated one centred inside it.

    Raises:
        DataError: it is not, or it has no area, or it lies in the first pixel, as fractions of the image do.
    """
    x1, y1, x2, y2 = box.coords[:4]
    width, height = frame.scale
    if max(map(abs, box.coords[:4])) <= 1 < min(width, height):
        raise DataError(f"expected a box in pixels, found fractions of the image: {list(box.coords)}")
    across, down = MAX_OUTSIDE * width + 1, MAX_OUTSIDE * height + 1
    if len(box.coords) == 5:
        x1 = x2 = (x1 + x2) / 2
        y1 = y2 = (y1 + y2) / 2
    elif x1 == x2 or y1 == y2:
        raise DataError(f"expected a box with positive area, found {list(box.coords)}")
    if x1 < -across or y1 < -down or x2 > width + across or y2 > height + down:
        found = ", ".join(f"{v:g}" for v in box.coords)
        raise DataError(f"expected a box inside the image, {width:g} x {height:g} pixels, found {found}")
    return box
