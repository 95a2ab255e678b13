"""fMoW (Christie et al., 2018; fMoW/dataset): image sequences of one location, one temporal classification each.

A folder ``<split>/<category>/<category>_<n>`` holds ``<category>_<n>_<t>_rgb.jpg`` and JSON files of the same
stem with ``timestamp``, ``gsd``, ``img_filename`` and ``bounding_boxes`` ``[{"category", "box": [x, y, width,
height]}]``. Images are in chronological order; sequences longer than ``frames`` are subsampled evenly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data.formats.base import Format, Source, Unit, field_of, image_reference, short_repr
from geovlm_ray.data.formats.files import first_existing, folder_units, int_option, sample_evenly, split_of_folder
from geovlm_ray.data.formats.streams import external_link, read_head, read_single_object, relative
from geovlm_ray.data.table import Row

FRAMES = 4
METADATA_SUFFIXES = ("_rgb.json", "_msrgb.json")
"""Metadata of pan-sharpened images, or if there are none, of multispectral images."""
NO_CATEGORY = "false_detection"
_NAMES = """
airport airport_hangar airport_terminal amusement_park aquaculture archaeological_site barn border_checkpoint
burial_site car_dealership construction_site crop_field dam debris_or_rubble educational_institution
electric_substation factory_or_powerplant fire_station flooded_road fountain gas_station golf_course
ground_transportation_station helipad hospital impoverished_settlement interchange lake_or_pond lighthouse
military_facility multi-unit_residential nuclear_powerplant office_building oil_or_gas_facility park
parking_lot_or_garage place_of_worship police_station port prison race_track railway_bridge recreational_facility
road_bridge runway shipyard shopping_mall single-unit_residential smokestack solar_farm space_facility stadium
storage_tank surface_mine swimming_pool toll_booth tower tunnel_opening waste_disposal water_treatment_facility
wind_farm zoo
"""
CATEGORIES = tuple(_NAMES.split())


@dataclass(frozen=True)
class SequenceImage:
    """An image of a sequence with the metadata from its JSON file."""

    time: datetime
    image: str
    category: str
    gsd: float | None
    sensor: str | None


def units(source: Source) -> Iterator[Unit]:
    """The sequence folders."""
    int_option(source, "frames", FRAMES)

    def sequence_units(folder: Path, files: list[str]) -> Iterator[Unit]:
        by_suffix = [[name for name in files if name.endswith(suffix)] for suffix in METADATA_SUFFIXES]
        if names := next(filter(None, by_suffix), []):
            yield Unit(relative(folder, source), 1, [str(folder / name) for name in names])

    yield from folder_units(source, sequence_units, f"*{METADATA_SUFFIXES[0]}")


def convert(unit: Unit, source: Source) -> Iterable[Row | Unit]:
    """The record of a sequence, and a problem for each image whose metadata is invalid."""
    images = []
    for path in map(Path, unit.value):
        if (link := external_link(path, source)) is not None:
            yield link
            continue
        try:
            images.append(_sequence_image(path, source))
        except DataError as error:
            yield Unit(relative(path, source), 1, read_head(path), str(error))
    if not images:
        return
    categories = sorted({p.category for p in images})
    if len(categories) > 1:
        raise DataError(f"category: expected one for the whole sequence, found {', '.join(categories)}")
    images.sort(key=lambda p: (p.time, p.image))
    sampled = sample_evenly(images, int_option(source, "frames", FRAMES))
    labels = CATEGORIES if categories[0] in CATEGORIES else (*CATEGORIES, categories[0])
    example = Example(
        id=unit.file,
        task="temporal_classification",
        images=tuple(p.image for p in sampled),
        question=f"The images show one place, the oldest first. Which class does it belong to? Classes: "
        f"{', '.join(labels)}.",
        target=(categories[0],),
        dataset="fMoW",
        split=split_of_folder(source.folder / unit.file, source),
        labels=labels,
        gsd=sampled[0].gsd,
        sensor=sampled[0].sensor,
    )
    yield Row(example, extra={"timestamps": [p.time.isoformat() for p in sampled], "gsd": [p.gsd for p in sampled]})


def _sequence_image(path: Path, source: Source) -> SequenceImage:
    """The image that a JSON file describes."""
    record = read_single_object(path)
    timestamp = field_of(record, "timestamp")
    try:
        time = datetime.fromisoformat(timestamp)
    except ValueError as error:
        raise DataError(f"timestamp: expected an ISO 8601 time, found {timestamp!r}") from error
    folder = relative(path, source).rpartition("/")[0] or "."
    reference = image_reference(f"{folder}/{field_of(record, 'img_filename')}")
    gsd, sensor = record.get("gsd"), record.get("sensor_platform_name")
    return SequenceImage(
        time=time if time.tzinfo else time.replace(tzinfo=UTC),
        image=first_existing(source, [reference, image_reference(f"{folder}/{path.stem}.jpg")]),
        category=_category(record),
        gsd=float(gsd) if isinstance(gsd, int | float) and 0 < gsd < 1e4 else None,
        sensor=sensor if isinstance(sensor, str) else None,
    )


def _category(record: Mapping[str, Any]) -> str:
    """The category of an image's boxes; ``bounding_boxes`` may be a single box instead of a list."""
    boxes = field_of(record, "bounding_boxes", (list, dict))
    names = {field_of(box, "category").strip() for box in ([boxes] if isinstance(boxes, dict) else boxes)}
    names = names - {NO_CATEGORY} or names
    if len(names) != 1 or not all(names):
        raise DataError(f"bounding_boxes: expected one category, found {short_repr(boxes)}")
    return names.pop()


FMOW = Format(
    "fMoW: folders of image sequences with JSON, one temporal classification each",
    units,
    convert,
    options={"frames": str(FRAMES)},
)
