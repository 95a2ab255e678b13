"""fMoW (Christie et al., 2018; fMoW/dataset): sequences of images of a place, one temporal classification each.

A folder ``<split>/<category>/<category>_<n>`` holds ``<category>_<n>_<t>_rgb.jpg`` and, of the same name, JSON with
``timestamp``, ``gsd``, ``img_filename`` and ``bounding_boxes`` ``[{"category", "box": [x, y, width, height]}]``. Images
stand in the order of their time; of longer sequences as many as ``frames`` says, evenly spread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data.formats.base import Format, Source, Unit, field_of, image_reference, shown
from geovlm_ray.data.formats.files import counted, first_there, folder_units, split_of_folder, spread
from geovlm_ray.data.formats.streams import beginning, outside, read_object, relative
from geovlm_ray.data.table import Row

FRAMES = 4
KINDS = ("_rgb.json", "_msrgb.json")
"""Pan-sharpened images, or where there are none those of the multispectral sensor."""
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
class Picture:
    """An image of a sequence, and what its JSON says."""

    time: datetime
    image: str
    category: str
    gsd: float | None
    sensor: str | None


def units(source: Source) -> Iterator[Unit]:
    """The folders of sequences.

    Raises:
        DataError: there is none.
    """
    counted(source, "frames", FRAMES)

    def of_folder(folder: Path, files: list[str]) -> Iterator[Unit]:
        of_kind = [[name for name in files if name.endswith(kind)] for kind in KINDS]
        if names := next(filter(None, of_kind), []):
            yield Unit(relative(folder, source), 1, [str(folder / name) for name in names])

    yield from folder_units(source, of_folder, f"*{KINDS[0]}")


def convert(unit: Unit, source: Source) -> Iterable[Row | Unit]:
    """The record of a sequence, and a problem for every image of it that cannot be read."""
    pictures = []
    for path in map(Path, unit.value):
        if (away := outside(path, source)) is not None:
            yield away
            continue
        try:
            pictures.append(_picture(path, source))
        except DataError as error:
            yield Unit(relative(path, source), 1, beginning(path), str(error))
    if not pictures:
        return
    categories = sorted({p.category for p in pictures})
    if len(categories) > 1:
        raise DataError(f"category: expected one for the whole sequence, found {', '.join(categories)}")
    pictures.sort(key=lambda p: (p.time, p.image))
    taken = spread(pictures, counted(source, "frames", FRAMES))
    labels = CATEGORIES if categories[0] in CATEGORIES else (*CATEGORIES, categories[0])
    example = Example(
        id=unit.file,
        task="temporal_classification",
        images=tuple(p.image for p in taken),
        question=f"The images show one place, the oldest first. Which class does it belong to? Classes: "
        f"{', '.join(labels)}.",
        target=(categories[0],),
        dataset="fMoW",
        split=split_of_folder(source.folder / unit.file, source),
        labels=labels,
        gsd=taken[0].gsd,
        sensor=taken[0].sensor,
    )
    yield Row(example, extra={"timestamps": [p.time.isoformat() for p in taken], "gsd": [p.gsd for p in taken]})


def _picture(path: Path, source: Source) -> Picture:
    """The image that a JSON file speaks of.

    Raises:
        DataError: the file cannot be read, or names no time, image or category.
    """
    record = read_object(path)
    stamp = field_of(record, "timestamp")
    try:
        time = datetime.fromisoformat(stamp)
    except ValueError as error:
        raise DataError(f"timestamp: expected a time in ISO 8601, found {stamp!r}") from error
    folder = relative(path, source).rpartition("/")[0] or "."
    named = image_reference(f"{folder}/{field_of(record, 'img_filename')}")
    gsd, sensor = record.get("gsd"), record.get("sensor_platform_name")
    return Picture(
        time=time if time.tzinfo else time.replace(tzinfo=UTC),
        image=first_there(source, [named, image_reference(f"{folder}/{path.stem}.jpg")]),
        category=_category(record),
        gsd=float(gsd) if isinstance(gsd, int | float) and 0 < gsd < 1e4 else None,
        sensor=sensor if isinstance(sensor, str) else None,
    )


def _category(record: Mapping[str, Any]) -> str:
    """The category of an image's boxes; one box may stand alone, without its list."""
    boxes = field_of(record, "bounding_boxes", (list, dict))
    names = {field_of(box, "category").strip() for box in ([boxes] if isinstance(boxes, dict) else boxes)}
    names = names - {NO_CATEGORY} or names
    if len(names) != 1 or not all(names):
        raise DataError(f"bounding_boxes: expected one category, found {shown(boxes)}")
    return names.pop()


FMOW = Format(
    "fMoW: folders of image sequences with JSON, a temporal classification each",
    units,
    convert,
    options={"frames": str(FRAMES)},
)
