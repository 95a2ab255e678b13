"""Image captions and change captions.

- Karpathy's format (RSICD, UCM, Sydney): ``{"images": [{"filename", "sentences": [{"raw"}], "split"}], "dataset"}``.
- LEVIR-CC and Dubai-CC (Chen-Yang-Liu/RSICC): the same with ``filepath`` and ``changeflag``; ``filename`` names two
  images: ``<filepath>/A/<filename>`` before and ``<filepath>/B/<filename>`` after; in Dubai-CC the folders are
  ``500_2000`` and ``500_2010``.
- NWPU-Captions (HaiyanHuang98/NWPU-Captions): ``{class: [{"filename", "raw", "raw_1", ..., "raw_4", "split"}]}``,
  images in class folders.
- JSON lines or an array of ``{"filename", "captions": [...]}``.

Empty sentences, which pad images with fewer captions, are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data.formats.base import Format, Source, Unit, field_of, image_reference, short_repr
from geovlm_ray.data.formats.files import choice_option, first_existing, image_exists, normalize_split, split_from_name
from geovlm_ray.data.formats.json_members import json_members
from geovlm_ray.data.formats.record_fields import optional_text
from geovlm_ray.data.formats.record_files import unread_keys
from geovlm_ray.data.formats.streams import external_link, json_records, relative, source_files
from geovlm_ray.data.table import Row

PAIRS = ("auto", "true", "false")
BEFORE_AND_AFTER = (("A", "B"), ("500_2000", "500_2010"))
DESCRIBE = "Describe the image in one sentence."
COMPARE = "Describe in one sentence what has changed from the first image to the second."
KNOWN_KEYS = ("filename", "filepath", "sentences", "captions", "split", "changeflag", "imgid", "sentids", "sentid")
_RAW = re.compile(r"raw(?:_\d+)?")


@dataclass(frozen=True)
class CaptionRecord:
    """A record as read, with the class and the dataset name that its file gives."""

    record: Any
    category: str | None = None
    dataset: str | None = None


def units(source: Source) -> Iterator[Unit]:
    """Each image or image pair of each file."""
    choice_option(source, "pairs", PAIRS)
    for path in source_files(source, (".json", ".jsonl")):
        if (link := external_link(path, source)) is not None:
            yield link
        elif _holds_lists_of_records(path):
            yield from _members(path, relative(path, source))
        else:
            for unit in json_records(path, source):
                yield unit if unit.problem else Unit(unit.file, unit.number, CaptionRecord(unit.value))


def convert(unit: Unit, source: Source) -> Iterable[Row]:
    """The record of an image or image pair; none if it has no caption."""
    entry: CaptionRecord = unit.value
    record = entry.record
    name = image_reference(field_of(record, "filename"))
    captions = tuple(filter(None, map(str.strip, _captions(record))))
    if not captions:
        return
    pair = _image_pair(record, name, source)
    stem = Path(unit.file).stem
    split = optional_text(record, "split")
    example = Example(
        id=f"{Path(unit.file).with_suffix('').as_posix()}/{unit.number}",
        task="change_captioning" if pair else "image_captioning",
        images=pair or (_single_image(record, name, entry.category, source),),
        question=COMPARE if pair else DESCRIBE,
        target=captions,
        dataset=entry.dataset or stem,
        split=normalize_split(split) if split else split_from_name(stem),
    )
    extra = {"class": entry.category, "changeflag": record.get("changeflag")}
    unread = tuple(key for key in unread_keys(record, KNOWN_KEYS) if not _RAW.fullmatch(key))
    yield Row(example, extra={key: value for key, value in extra.items() if value is not None}, unread=unread)


def _holds_lists_of_records(path: Path) -> bool:
    """Whether a file is one object with lists of records, rather than JSON lines or an array."""
    for key, unit in json_members(path, "", None):
        if key in ("", "filename", "sentences", "captions"):
            return False
        if unit.number > 0:
            return isinstance(unit.value, Mapping)
    return False


def _members(path: Path, name: str) -> Iterator[Unit]:
    """The records of a file with one object, numbered consecutively; any key other than ``images`` is their class."""
    names = (u.value for key, u in json_members(path, name, ("images",)) if (key, u.number) == ("dataset", 0))
    dataset = next((value for value in names if isinstance(value, str) and value.strip()), None)
    number = 0
    for key, unit in json_members(path, name, None):
        if unit.problem is None and unit.number == 0:
            continue
        number += 1
        category = None if key == "images" else key
        value = None if unit.problem else CaptionRecord(unit.value, category, dataset)
        yield Unit(name, number, value, unit.problem)


def _captions(record: Mapping[str, Any]) -> list[str]:
    """The sentences of a record, in any of the formats."""
    if "sentences" in record:
        sentences = field_of(record, "sentences", list)
        return [s if isinstance(s, str) else field_of(s, "raw") for s in sentences]
    if "captions" in record:
        captions = field_of(record, "captions", list)
    else:
        captions = [value for key, value in record.items() if _RAW.fullmatch(key)]
    if not all(isinstance(c, str) for c in captions) or ("captions" not in record and not captions):
        raise DataError(f"expected sentences, captions or raw texts, found {short_repr(dict(record))}")
    return captions


def _single_image(record: Mapping[str, Any], name: str, category: str | None, source: Source) -> str:
    """The image of a record: in its ``filepath``, in the folder of its class, or ``filename`` itself."""
    folders = [folder for folder in (record.get("filepath"), category) if isinstance(folder, str) and folder]
    return first_existing(source, [*(image_reference(f"{folder}/{name}") for folder in folders), name])


def _image_pair(record: Mapping[str, Any], name: str, source: Source) -> tuple[str, str] | None:
    """The images before and after of a change caption; None for the caption of a single image."""
    pairs = choice_option(source, "pairs", PAIRS)
    parent = record.get("filepath") or record.get("split") or ""
    if pairs == "false" or not isinstance(parent, str):
        return None
    candidates = [
        (image_reference(f"{folder}/{before}/{name}"), image_reference(f"{folder}/{after}/{name}"))
        for before, after in BEFORE_AND_AFTER
        for folder in dict.fromkeys([parent or ".", f"images/{parent}", ".", "images", "imgs_tiles/RGB"])
    ]
    existing = next((pair for pair in candidates if all(image_exists(source, image) for image in pair)), None)
    if pairs == "true" or "changeflag" in record:
        return existing or candidates[0]
    return existing


CAPTIONS = Format(
    "captions (RSICD, UCM, Sydney, NWPU-Captions, JSON lines) and change captions (LEVIR-CC, Dubai-CC);"
    " pairs=auto|true|false",
    units,
    convert,
    options={"pairs": PAIRS[0]},
)
