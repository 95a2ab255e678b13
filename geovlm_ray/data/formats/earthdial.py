"""EarthDial-Instruct (hiyamdebary/EarthDial; akshaydudhane/EarthDial-Dataset on Hugging Face).

It comes as conversations in JSON or JSON lines, images beside them, and as shards of the datasets library (Parquet, or
the Arrow files of ``save_to_disk``) with the images inside, in columns such as ``jpg``, or ``jpg_A`` to ``jpg_D`` for a
sequence. Either kind has ``conversations``, or ``question`` with ``groundtruth`` or ``groundtruth0`` to
``groundtruth4``, which stand in double quotes. Images of shards go below the output.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data.formats.base import Converted, Format, Source, Unit, field_of, shown
from geovlm_ray.data.formats.conversations import conversation_rows, images_of, record_id, turn_id
from geovlm_ray.data.formats.leftover import leftover, rendered_answer, rendered_prompt, restored, write_records
from geovlm_ray.data.formats.prompts import example_of
from geovlm_ray.data.formats.shards import ShardRecord, shard_files, shard_units, stored_name
from geovlm_ray.data.formats.streams import json_records, relative, source_files
from geovlm_ray.data.table import Row

DATASET = "EarthDial-Instruct"
REFERENCES = ("groundtruth", *(f"groundtruth{i}" for i in range(5)))
METADATA = ("dataset_info.json", "state.json", "dataset_dict.json")
"""Files that ``save_to_disk`` writes beside shards."""


def units(source: Source) -> Iterator[Unit]:
    """Every record of the shards, or else of the conversation files.

    Raises:
        DataError: the source mixes the two, whose images have different roots.
    """
    shards = shard_files(source)
    if not shards:
        for path in source_files(source, (".json", ".jsonl")):
            yield from json_records(path, source)
        return
    if source.path.is_dir():
        others = sorted(p for p in source.path.rglob("*.json*") if p.name not in METADATA and p.is_file())
        if others:
            raise DataError(
                f"{source.path}: expected shards or conversation files, found both, {relative(shards[0], source)} and "
                f"{relative(others[0], source)}; convert them one after the other"
            )
    for path in shards:
        yield from shard_units(path, source)


def convert(unit: Unit, source: Source) -> Iterable[Row | Converted | Unit]:
    """The records of a conversation, or the one of a question; none where the reference is empty."""
    record: Any = unit.value
    files: dict[str, bytes] = {}
    if isinstance(record, ShardRecord):
        names = list(map(stored_name, record.images))
        files = dict(zip(names, record.images, strict=True))
        record = record.fields | {"image": names[0] if len(names) == 1 else names}
    if not isinstance(record, dict):
        raise DataError(f"expected an object, found {shown(record)}")
    rows, bad = _conversation(unit, record) if "conversations" in record else (_question(unit, record), [])
    if rows:
        yield Converted(replace(rows[0], extra=leftover(record, _rendered(rows))), files)
    yield from rows[1:]
    yield from bad


def restore(rows: Iterator[Row], header: Mapping[str, Any], out: Path) -> None:
    """Write records back as JSON, or as JSON lines; those of shards name their images by their stored paths."""
    groups = itertools.groupby(rows, key=lambda row: (row.source_file, row.source_record))
    write_records(out, ((file, _restored(list(group))) for (file, _), group in groups))


def stores_images(source: Source) -> bool:
    """Whether the images come out of the source."""
    return bool(shard_files(source))


def _conversation(unit: Unit, record: Mapping[str, Any]) -> tuple[list[Row], list[Unit]]:
    images, id = images_of(record), record_id(record, unit, "id", "__key__")

    def example(number: int, question: str, answer: str) -> Example:
        return example_of(turn_id(id, number), question, (answer,), images, dataset=DATASET)

    return conversation_rows(unit, record["conversations"], example)


def _question(unit: Unit, record: Mapping[str, Any]) -> list[Row]:
    """A question with one reference, or with several captions."""
    prompt = _unquoted(field_of(record, "question"))
    given = [record[key] for key in REFERENCES if record.get(key) is not None]
    if not any(key in record for key in REFERENCES) or not all(isinstance(text, str) for text in given):
        raise DataError(f"expected the text 'conversations' or 'groundtruth', found {shown(dict(record))}")
    answers = [text for text in map(_unquoted, given) if text.strip()]
    if not answers:
        return []
    id = record_id(record, unit, "id", "__key__")
    return [Row(example_of(id, prompt, answers, images_of(record), dataset=DATASET))]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _rendered(rows: list[Row]) -> dict[str, Any]:
    """The record of some rows as far as their columns tell."""
    images = list(rows[0].example.images)
    turns = []
    for i, row in enumerate(rows):
        turns.append({"from": "human", "value": rendered_prompt(row.example, 0 if i else len(images))})
        turns.append({"from": "gpt", "value": rendered_answer(row.example)})
    return {"id": rows[0].example.id, "image": images[0] if len(images) == 1 else images, "conversations": turns}


def _restored(rows: list[Row]) -> dict[str, Any]:
    return restored(_rendered(rows), rows[0].extra)


EARTHDIAL = Format(
    "EarthDial-Instruct: conversation JSON or JSON lines, or shards (Parquet, Arrow) with the images inside",
    units,
    convert,
    stores_images=stores_images,
    restore=restore,
)
