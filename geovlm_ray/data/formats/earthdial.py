"""EarthDial-Instruct (hiyamdebary/EarthDial; akshaydudhane/EarthDial-Dataset on Hugging Face).

Published as conversations in JSON or JSON lines with separate image files, and as shards of the datasets library
(Parquet, or the Arrow files of ``save_to_disk``) with embedded images, in columns such as ``jpg``, or ``jpg_A`` to
``jpg_D`` for a sequence. Records of both have ``conversations``, or ``question`` with ``groundtruth`` or
``groundtruth0`` to ``groundtruth4``, which are in double quotes. Images of shards are extracted into the output folder.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.formats.base import Format, Source, Unit, field_of, short_repr
from geovlm_ray.data.formats.conversations import conversation_rows, images_of, record_id
from geovlm_ray.data.formats.prompts import example_of
from geovlm_ray.data.formats.record_fields import split_of_file
from geovlm_ray.data.formats.record_files import record_of, record_units, stores_images, unread_keys
from geovlm_ray.data.formats.roundtrip import extra_fields, render_answer, render_prompt, restore_record, write_records
from geovlm_ray.data.formats.shards import ShardRecord
from geovlm_ray.data.table import Row

DATASET = "EarthDial-Instruct"
REFERENCES = ("groundtruth", *(f"groundtruth{i}" for i in range(5)))
KNOWN_KEYS = ("id", "__key__", "image", "conversations", "question", *REFERENCES)


def convert(unit: Unit, source: Source) -> Iterable[Row | Unit]:
    """The records of a conversation, or the record of a single question; none if its reference is empty."""
    record, files = record_of(unit)
    if isinstance(unit.value, ShardRecord):
        if not files:
            raise DataError(f"expected a column of image bytes, found the columns {', '.join(record)}")
        names = [name for column in unit.value.images for name in record.pop(column)]
        record = _without_pixels(record)
        record["image"] = names[0] if len(names) == 1 else names
    split = split_of_file(unit.file, source)
    rows, bad = (
        _conversation(unit, record, split) if "conversations" in record else (_question(unit, record, split), [])
    )
    if rows:
        extra, unread = extra_fields(record, _rendered(rows)), unread_keys(record, KNOWN_KEYS)
        yield replace(rows[0], extra=extra, files=files, unread=unread)
    yield from rows[1:]
    yield from bad


def restore(rows: Iterator[Row], header: Mapping[str, Any], out: Path) -> None:
    """Write records back as JSON or JSON lines; those of shards refer to their images by output path."""

    def restored(rows: list[Row]) -> dict[str, Any]:
        return restore_record(_rendered(rows), rows[0].extra)

    groups = itertools.groupby(rows, key=lambda row: (row.source_file, row.source_record))
    write_records(out, ((file, restored(list(group))) for (file, _), group in groups))


def _without_pixels(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without columns of pixels, which are rows of numbers."""
    return {k: v for k, v in record.items() if not (isinstance(v, list) and v and isinstance(v[0], list))}


def _conversation(unit: Unit, record: Mapping[str, Any], split: str) -> tuple[list[Row], list[Unit]]:
    example = partial(example_of, images=images_of(record), dataset=DATASET, split=split)
    return conversation_rows(unit, record["conversations"], record_id(record, unit, "id", "__key__"), example)


def _question(unit: Unit, record: Mapping[str, Any], split: str) -> list[Row]:
    """The record of a question with one reference or several captions; none if the references are empty."""
    prompt = _unquoted(field_of(record, "question"))
    references = [record[key] for key in REFERENCES if record.get(key) is not None]
    if not any(key in record for key in REFERENCES) or not all(isinstance(text, str) for text in references):
        raise DataError(f"expected 'conversations', or 'groundtruth' as a string, found {short_repr(dict(record))}")
    answers = [text for text in map(_unquoted, references) if text.strip()]
    if not answers:
        return []
    id = record_id(record, unit, "id", "__key__")
    return [Row(example_of(id, prompt, answers, images_of(record), dataset=DATASET, split=split))]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _rendered(rows: list[Row]) -> dict[str, Any]:
    """The source record as far as the columns of its rows reproduce it."""
    images = list(rows[0].example.images)
    turns = []
    for i, row in enumerate(rows):
        turns.append({"from": "human", "value": render_prompt(row.example, 0 if i else len(images))})
        turns.append({"from": "gpt", "value": render_answer(row.example)})
    return {"id": rows[0].example.id, "image": images[0] if len(images) == 1 else images, "conversations": turns}


EARTHDIAL = Format(
    "EarthDial-Instruct: conversation JSON or JSON lines, or shards (Parquet, Arrow) with embedded images",
    record_units,
    convert,
    stores_images=stores_images,
    restore=restore,
)
