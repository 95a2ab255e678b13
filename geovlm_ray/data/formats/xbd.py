"""xBD (Gupta et al., 2019): image pairs before and after a disaster, with building damage.

``labels/<name>_post_disaster.json`` holds ``features.xy``, polygons in pixels as WKT with the damage class in
``properties.subtype``, and ``metadata``; the images are ``images/<name>_pre_disaster.png`` and ``_post_disaster.png``.
A pair yields one detection per damage class (the bounding boxes of its polygons), the damage of at most ``buildings``
single buildings, sampled evenly over the file, and the kind of disaster. Unclassified buildings are skipped. Images
must have the size in ``metadata``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import shapely

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example, Target, target_boxes
from geovlm_ray.data.formats.base import Format, Source, Unit, field_of, short_repr
from geovlm_ray.data.formats.files import first_existing, image_exists, int_option, sample_evenly, split_of_folder
from geovlm_ray.data.formats.objects import check_inside, pixel_frame
from geovlm_ray.data.formats.streams import file_units, read_single_object
from geovlm_ray.data.table import Row
from geovlm_ray.tasks.answers.box_dialects import MAX_COORDINATE

BUILDINGS = 8
PRE, POST = "_pre_disaster", "_post_disaster"
UNCLASSIFIED = "un-classified"
DAMAGE = {
    "no-damage": "undamaged building",
    "minor-damage": "building with minor damage",
    "major-damage": "building with major damage",
    "destroyed": "destroyed building",
}
"""The damage classes, with the phrase for such a building in questions."""
DISASTERS = ("earthquake", "fire", "flooding", "tsunami", "volcano", "wind")
_LABELS = tuple(DAMAGE)
EXTRA_SPLITS = ("hold", "tier1", "tier3")
_PAIR = "The first image was taken before a disaster, the second after it."


def units(source: Source) -> Iterator[Unit]:
    """The post-disaster label files, and pre-disaster ones without a counterpart, which have no value."""
    int_option(source, "buildings", BUILDINGS)
    for unit in file_units(source, (".json",)):
        stem = unit.file.removesuffix(".json")
        if unit.problem is None and stem.endswith(PRE):
            if not (source.folder / f"{stem.removesuffix(PRE)}{POST}.json").exists():
                yield replace(unit, value=None)
        elif unit.problem is None and not stem.endswith(POST):
            yield replace(unit, problem=f"expected a file *{PRE}.json or *{POST}.json, found another name")
        else:
            yield unit


def convert(unit: Unit, source: Source) -> Iterable[Row | Unit]:
    """The records of a pair, and a problem for each invalid building."""
    if unit.value is None:
        return
    labels = read_single_object(Path(unit.value))
    metadata = field_of(labels, "metadata", dict)
    size = [field_of(metadata, side, (int, float)) for side in ("width", "height")]
    if not all(0 < side <= MAX_COORDINATE for side in size):
        raise DataError(f"metadata: expected a positive width and height, found {short_repr(size)}")
    common, frame = _common(unit, metadata, source), Frame("pixel", *size)
    for image in common.images:
        if image_exists(source, image):
            pixel_frame(image, source, (size[0], size[1]))
    boxes: list[Box] = []
    for number, feature in enumerate(field_of(field_of(labels, "features", dict), "xy", list), 1):
        try:
            boxes += (check_inside(box, frame) for box in _boxes(feature))
        except DataError as error:
            yield Unit(unit.file, number, feature, f"features.xy, number {number}: {error}")
    disaster, disaster_type = metadata.get("disaster"), metadata.get("disaster_type")
    buildings = sample_evenly(boxes, int_option(source, "buildings", BUILDINGS))
    for example in _examples(common, boxes, buildings, frame, disaster_type):
        extra = {"disaster": disaster} if isinstance(disaster, str) else {}
        yield Row(example, extra=extra, parts=len(target_boxes(example.target)) or 1)


def _boxes(feature: Any) -> list[Box]:
    """The bounding box of a building, labelled with its damage class; none if it is unclassified."""
    damage = field_of(field_of(feature, "properties", dict), "subtype")
    if damage == UNCLASSIFIED:
        return []
    if damage not in DAMAGE:
        raise DataError(f"subtype: expected {', '.join((*DAMAGE, UNCLASSIFIED))}, found {damage!r}")
    text = field_of(feature, "wkt")
    try:
        coords = shapely.from_wkt(text).bounds
    except shapely.errors.ShapelyError as error:
        raise DataError(f"wkt: expected a polygon, found {short_repr(text)}") from error
    finite = all(math.isfinite(c) and abs(c) <= MAX_COORDINATE for c in coords)
    if not finite or not (coords[0] < coords[2] and coords[1] < coords[3]):
        raise DataError(f"wkt: expected a polygon with positive area, found {short_repr(text)}")
    return [Box(coords, damage)]


def _common(unit: Unit, metadata: Mapping[str, Any], source: Source) -> Example:
    """The fields that all records of a pair share; task, question and target are placeholders."""
    stem = PurePosixPath(unit.file.removesuffix(f"{POST}.json"))
    folders = dict.fromkeys([stem.parent.parent / "images", stem.parent, PurePosixPath("images"), PurePosixPath()])
    candidates = [(folder / stem.name).as_posix() + POST + ending for folder in folders for ending in (".png", ".tif")]
    after = first_existing(source, candidates)
    before = PRE.join(after.rsplit(POST, 1))
    gsd, sensor = metadata.get("gsd"), metadata.get("sensor")
    return Example(
        id=stem.as_posix(),
        task="vqa",
        images=(before, after),
        question="",
        target="",
        dataset="xBD",
        split=split_of_folder(Path(unit.value).parent, source, extra_names=EXTRA_SPLITS),
        gsd=float(gsd) if isinstance(gsd, int | float) and 0 < gsd < 1e4 else None,
        sensor=sensor if isinstance(sensor, str) else None,
    )


def _examples(
    common: Example, boxes: Sequence[Box], buildings: Sequence[Box], frame: Frame, disaster: Any
) -> Iterator[Example]:
    """One referred detection per damage class that occurs; the damage of single buildings, each identified by its box
    in percent; and the kind of disaster, if it is known.
    """

    def example(name: str, task: str, question: str, target: Target, labels: tuple[str, ...] = _LABELS) -> Example:
        id, question = f"{common.id}/{name}", f"{_PAIR} {question}"
        return replace(common, id=id, task=task, question=question, target=target, labels=labels)

    for damage, phrase in DAMAGE.items():
        if matching := tuple(box for box in boxes if box.label == damage):
            question = f"Give me the location of every {phrase} in the second image."
            yield replace(example(damage, "referred_object_detection", question, matching), frame=frame)
    for number, box in enumerate(buildings, 1):
        coords = ", ".join(f"{c:.1f}" for c in frame.convert(box.coords, Frame()))
        question = f"How badly is the building at [[{coords}]] damaged? Classes: {', '.join(DAMAGE)}."
        yield example(f"building-{number}", "damage_assessment", question, (str(box.label),))
    if isinstance(disaster, str) and disaster.strip():
        labels = tuple(dict.fromkeys((*DISASTERS, disaster.strip())))
        question = f"Which kind of disaster was it? Classes: {', '.join(labels)}."
        yield example("disaster", "temporal_classification", question, (disaster.strip(),), labels)


XBD = Format(
    "xBD: pairs before and after a disaster; detection by damage class, damage of buildings, kind of disaster",
    units,
    convert,
    options={"buildings": str(BUILDINGS)},
)
