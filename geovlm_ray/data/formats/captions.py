"""Captions of images and of changes between two.

- Karpathy's form (RSICD, UCM, Sydney): ``{"images": [{"filename", "sentences": [{"raw"}], "split"}], "dataset"}``.
- LEVIR-CC and Dubai-CC (Chen-Yang-Liu/RSICC): the same with ``filepath`` and ``changeflag``; ``filename`` names two
  images, ``<filepath>/A/<filename>`` before and ``<filepath>/B/<filename>`` after; in Dubai-CC the folders are
  ``500_2000`` and ``500_2010``.
- NWPU-Captions (HaiyanHuang98/NWPU-Captions): ``{class: [{"filename", "raw", "raw_1", ..., "raw_4", "split"}]}``,
  images in folders by class.
- Lines or a list of ``{"filename", "captions": [...]}``.

Empty sentences are left out, as they stand where an image has fewer than the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data.formats.base import Format, Source, Unit, field_of, image_reference, shown
from geovlm_ray.data.formats.files import chosen, first_there, is_there, split_called, split_in_name
from geovlm_ray.data.formats.json_members import json_members
from geovlm_ray.data.formats.streams import json_records, outside, relative, source_files
from geovlm_ray.data.table import Row

PAIRS = ("auto", "true", "false")
BEFORE_AND_AFTER = (("A", "B"), ("500_2000", "500_2010"))
DESCRIBE = "Describe the image in one sentence."
COMPARE = "Describe in one sentence what has changed from the first image to the second."
_RAW = re.compile(r"raw(?:_\d+)?")


@dataclass(frozen=True)
class Captioned:
    """A record as it stands in a file, and what the file says of all of its kind: its class, the dataset's name."""

    record: Any
    category: str | None = None
    dataset: str | None = None


def units(source: Source) -> Iterator[Unit]:
    """Every image or pair of every file."""
    chosen(source, "pairs", PAIRS)
    for path in source_files(source, (".json", ".jsonl")):
        if (away := outside(path, source)) is not None:
            yield away
        elif _is_one_object(path):
            yield from _members(path, relative(path, source))
        else:
            for unit in json_records(path, source):
                yield unit if unit.problem else Unit(unit.file, unit.number, Captioned(unit.value))


def convert(unit: Unit, source: Source) -> Iterable[Row]:
    """The record of an image or pair, if it has a caption."""
    captioned: Captioned = unit.value
    record = captioned.record
    name = image_reference(field_of(record, "filename"))
    captions = tuple(filter(None, map(str.strip, _captions(record))))
    if not captions:
        return
    pair = _pair(record, name, source)
    stem = Path(unit.file).stem
    split = field_of(record, "split") if "split" in record else None
    example = Example(
        id=f"{Path(unit.file).with_suffix('').as_posix()}/{unit.number}",
        task="change_captioning" if pair else "image_captioning",
        images=pair or (_single(record, name, captioned.category, source),),
        question=COMPARE if pair else DESCRIBE,
        target=captions,
        dataset=captioned.dataset or stem,
        split=split_called(split) if split else split_in_name(stem),
    )
    extra = {"class": captioned.category, "changeflag": record.get("changeflag")}
    yield Row(example, extra={key: value for key, value in extra.items() if value is not None})


def _is_one_object(path: Path) -> bool:
    """Whether a file is one object with lists of records, rather than lines or a list of them."""
    for key, unit in json_members(path, "", None):
        if key in ("", "filename", "sentences", "captions"):
            return False
        if unit.number > 0:
            return isinstance(unit.value, Mapping)
    return False


def _members(path: Path, name: str) -> Iterator[Unit]:
    """The records of one object, numbered through: those under ``images``, or under any other key, a class."""
    named = (u.value for key, u in json_members(path, name, ("images",)) if (key, u.number) == ("dataset", 0))
    dataset = next((value for value in named if isinstance(value, str) and value.strip()), None)
    number = 0
    for key, unit in json_members(path, name, None):
        if unit.problem is None and unit.number == 0:
            continue
        number += 1
        category = None if key == "images" else key
        value = None if unit.problem else Captioned(unit.value, category, dataset)
        yield Unit(name, number, value, unit.problem)


def _captions(record: Mapping[str, Any]) -> list[str]:
    """The sentences of a record, in any of the forms.

    Raises:
        DataError: there are none, or one is no text.
    """
    if "sentences" in record:
        sentences = field_of(record, "sentences", list)
        return [s if isinstance(s, str) else field_of(s, "raw") for s in sentences]
    if "captions" in record:
        captions = field_of(record, "captions", list)
    else:
        captions = [value for key, value in record.items() if _RAW.fullmatch(key)]
    if not all(isinstance(c, str) for c in captions) or ("captions" not in record and not captions):
        raise DataError(f"expected sentences, captions or raw texts, found {shown(dict(record))}")
    return captions


def _single(record: Mapping[str, Any], name: str, category: str | None, source: Source) -> str:
    """Where the image of a record lies: in the folder that the record names, in that of its class, or as it is."""
    above = [folder for folder in (record.get("filepath"), category) if isinstance(folder, str) and folder]
    return first_there(source, [*(image_reference(f"{folder}/{name}") for folder in above), name])


def _pair(record: Mapping[str, Any], name: str, source: Source) -> tuple[str, str] | None:
    """The images of a record of changes; None for one of a single image."""
    pairs = chosen(source, "pairs", PAIRS)
    above = record.get("filepath") or record.get("split") or ""
    if pairs == "false" or not isinstance(above, str):
        return None
    found = [
        (image_reference(f"{folder}/{before}/{name}"), image_reference(f"{folder}/{after}/{name}"))
        for before, after in BEFORE_AND_AFTER
        for folder in dict.fromkeys([above or ".", f"images/{above}", ".", "images", "imgs_tiles/RGB"])
    ]
    there = next((pair for pair in found if all(is_there(source, image) for image in pair)), None)
    if pairs == "true" or "changeflag" in record:
        return there or found[0]
    return there


CAPTIONS = Format(
    "captions: RSICD, UCM, Sydney, NWPU-Captions, JSON lines, and of changes LEVIR-CC, Dubai-CC; pairs=auto|true|false",
    units,
    convert,
    options={"pairs": PAIRS[0]},
)
