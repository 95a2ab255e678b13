"""Questions with a reference answer, for reinforcement learning: EasyR1, VLM-R1, R1-V, ms-swift, verl.

A record has a question under one of `QUESTION_KEYS`, an answer under one of `ANSWER_KEYS`, and ``image`` or ``images``.
The answer is text, also between ``<answer>`` tags and after ``<think>``, a number, a list of classes, or boxes as text,
JSON or lists. verl's records have ``prompt`` as chat messages, the answer under ``reward_model.ground_truth``, the name
of the dataset under ``data_source`` and the split in ``extra_info`` (volcengine/verl,
docs/preparation/prepare_data.rst). ms-swift's have the question as ``messages`` without an answer, beside a
``solution``. LLaMA-Factory's Alpaca records have ``instruction``, ``input`` and ``output``. System messages are left
out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.formats.base import Format, Settled, Source, Unit, field_of, short_repr
from geovlm_ray.data.formats.box_frames import FRAME_OPTIONS, RawRow, framed, settle_frame
from geovlm_ray.data.formats.chat import message_text
from geovlm_ray.data.formats.conversations import record_id
from geovlm_ray.data.formats.record_fields import (
    IMAGE_KEYS,
    METADATA_KEYS,
    check_placeholders,
    image_references,
    licence_of,
    optional_text,
    positive_number,
    split_of,
)
from geovlm_ray.data.formats.record_files import record_of, record_units, stores_images, unread_keys
from geovlm_ray.data.formats.references import check_task, raw_example, reference_of
from geovlm_ray.data.table import Row

QUESTION_KEYS = ("problem", "question", "query", "instruction", "prompt", "messages")
ANSWER_KEYS = ("answer", "solution", "ground_truth", "response", "output")
DATASET_KEYS = ("dataset", "data_source")
QUESTION_ROLES = ("user", "human")
OTHER_KEYS = ("id", "question_id", "input", "reward_model", *DATASET_KEYS, *IMAGE_KEYS, *METADATA_KEYS)


def settle(source: Source) -> Settled:
    """The unit of boxes."""
    check_task(source)
    return settle_frame(source, record_units(source), raw_rows)


def convert(unit: Unit, source: Source) -> Iterable[Row | Unit]:
    """The record of a question; none if it has no answer."""
    return framed(unit, raw_rows(unit, source), source)


def raw_rows(unit: Unit, source: Source) -> Iterable[RawRow]:
    """The raw record of a question; none if its answer is null."""
    record, files = record_of(unit)
    question_key = _first_key(record, QUESTION_KEYS)
    embedded: list[str] = []
    question = _question(record[question_key], embedded, source)
    if question_key == "instruction" and (context := optional_text(record, "input")):
        question = f"{question}\n{context}"
    answer_key, answer = _answer(record)
    if answer is None:
        return []
    images = image_references(record, source, embedded)
    check_placeholders((question,), images)
    reference = reference_of(answer)
    extra_info = record.get("extra_info")
    extra_info = extra_info if isinstance(extra_info, dict) else {}
    split = split_of({"split": extra_info.get("split")} | _present(record), unit, source)
    example = raw_example(
        source,
        _id(record, extra_info, split, unit),
        question,
        reference,
        images,
        dataset=next((text for key in DATASET_KEYS if (text := optional_text(record, key))), ""),
        split=split,
    )
    example = replace(
        example,
        sensor=optional_text(record, "sensor") or example.sensor,
        gsd=positive_number(record, "gsd") or example.gsd,
    )
    unread = unread_keys(record, (question_key, answer_key, *OTHER_KEYS))
    nested = tuple(f"extra_info.{key}" for key in unread_keys(extra_info, ("split", "index")))
    unread = (*(key for key in unread if key != "extra_info"), *nested)
    turns = record[question_key]
    if isinstance(turns, list) and any(m["role"] == "system" and m.get("content") for m in turns):
        unread = (*unread, "system message")
    return [RawRow(Row(example, licence=licence_of(record), files=files, unread=unread), reference.usual)]


def _id(record: Mapping[str, Any], extra_info: Mapping[str, Any], split: str, unit: Unit) -> str:
    """The id of a record: its own, verl's index, which counts within the split, or the place of the record."""
    if record.get("id") is None and record.get("question_id") is None and extra_info.get("index") is not None:
        return f"{split}-{field_of(extra_info, 'index', (str, int))}"
    return record_id(record, unit, "id", "question_id")


def _present(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if value is not None}


def _first_key(record: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    for key in keys:
        if record.get(key) is not None:
            return key
    raise DataError(f"expected one of the keys {', '.join(keys)}, found only {', '.join(map(repr, record))}"[:500])


def _question(value: Any, images: list[str], source: Source) -> str:
    """The text of a question, or of the user's message; appends the images of their parts to ``images``.

    Raises:
        DataError: it is something else, or a conversation of several turns.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise DataError(f"expected a question, or a list of messages, found {short_repr(value)}")
    roles = [field_of(message, "role") for message in value]
    asked = [message for message, role in zip(value, roles, strict=True) if role in QUESTION_ROLES]
    if len(asked) != 1 or not set(roles) <= {*QUESTION_ROLES, "system"}:
        raise DataError(f"expected one message of the user, found the roles {', '.join(roles)}"[:300])
    return message_text(asked[0], images, source)


def _answer(record: Mapping[str, Any]) -> tuple[str, Any]:
    """The key and the value of the answer; None if it is null.

    Raises:
        DataError: there is no key of an answer.
    """
    if isinstance(record.get("reward_model"), dict) and "ground_truth" in record["reward_model"]:
        return "reward_model", record["reward_model"]["ground_truth"]
    key = next((key for key in ANSWER_KEYS if record.get(key) is not None), None)
    if key is None and (named := [key for key in ANSWER_KEYS if key in record]):
        return named[0], None
    if key is None:
        raise DataError(
            f"expected one of the keys {', '.join(ANSWER_KEYS)}, or reward_model.ground_truth, found only "
            f"{', '.join(map(repr, record))}"[:500]
        )
    return key, record[key]


QA = Format(
    "questions with answers (problem and answer or solution; EasyR1, VLM-R1, R1-V, verl, Alpaca):"
    " JSON, JSON lines, Parquet",
    record_units,
    convert,
    options={"task": "auto", **FRAME_OPTIONS},
    settle=settle,
    stores_images=stores_images,
)
