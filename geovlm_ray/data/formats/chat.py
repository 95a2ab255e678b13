"""Chat records, as ms-swift, LLaMA-Factory, ShareGPT, TRL and Qwen's fine-tuning code read them.

A record has ``messages`` (``role``, ``content``) or ``conversations`` (``from``, ``value``), or TRL's ``prompt`` and
``completion``; content is text or a list of parts. Images are under ``images`` or ``image``, or parts of the content.
ms-swift's ``objects`` replace the placeholders ``<ref-object>`` and ``<bbox>``: ``bbox`` in pixels unless ``bbox_type``
states ``norm1`` (fractions) or ``norm1000`` (modelscope/ms-swift, docs/source_en/Customization/Custom-dataset.md).
Boxes in answers may be Qwen's JSON. Each question with its answer is a record; system messages are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data.formats.base import Format, Settled, Source, Unit, field_of, short_repr
from geovlm_ray.data.formats.box_frames import FRAME_OPTIONS, RawRow, framed, settle_frame
from geovlm_ray.data.formats.conversations import conversation_rows, record_id
from geovlm_ray.data.formats.record_fields import (
    IMAGE_KEYS,
    METADATA_KEYS,
    check_placeholders,
    image_path,
    image_references,
    licence_of,
    optional_text,
    positive_number,
    split_of,
)
from geovlm_ray.data.formats.record_files import record_of, record_units, stores_images, unread_keys
from geovlm_ray.data.formats.references import check_task, raw_example, reference_of
from geovlm_ray.data.formats.swift_objects import KNOWN_KEYS as OBJECT_KEYS
from geovlm_ray.data.formats.swift_objects import check_image, fill_placeholders, stated_unit
from geovlm_ray.data.table import Row

TURN_KEYS = ("messages", "conversations", "conversation")
KNOWN_KEYS = (*TURN_KEYS, "prompt", "completion", "objects", "id", "dataset", *IMAGE_KEYS, *METADATA_KEYS)
UNSUPPORTED = ("video", "videos", "audio", "audios")
ROLES = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "system": "system"}


def settle(source: Source) -> Settled:
    """The unit of boxes."""
    check_task(source)
    return settle_frame(source, record_units(source), raw_rows)


def convert(unit: Unit, source: Source) -> Iterable[Row | Unit]:
    """The records of a conversation."""
    return framed(unit, raw_rows(unit, source), source)


def raw_rows(unit: Unit, source: Source) -> Iterable[RawRow | Unit]:
    """The raw records of a conversation, and a problem for each invalid turn of several."""
    record, files = record_of(unit)
    for key in UNSUPPORTED:
        if record.get(key):
            raise DataError(f"{key}: expected images only, found {short_repr(record[key])}")
    turns, embedded = _turns(record, source)
    images = image_references(record, source, embedded)
    if isinstance(turns, list):
        check_placeholders([turn["value"] for turn in turns if turn["from"] == "human"], images)
    objects = record.get("objects")
    if objects is not None:
        check_image(objects, len(images))
        turns = fill_placeholders(turns, objects)
    dataset, split = optional_text(record, "dataset") or "", split_of(record, unit, source)
    sensor, gsd = optional_text(record, "sensor"), positive_number(record, "gsd")
    usual: dict[str, str] = {}

    def example(id: str, question: str, answers: tuple[str]) -> Example:
        reference = reference_of(answers[0])
        usual[id] = "pixel" if objects is not None else reference.usual
        made = raw_example(source, id, question, reference, images, dataset=dataset, split=split)
        return replace(made, sensor=sensor or made.sensor, gsd=gsd or made.gsd)

    rows, bad = conversation_rows(unit, turns, record_id(record, unit, "id"), example)
    licence, unread = licence_of(record), unread_keys(record, KNOWN_KEYS)
    if isinstance(objects, dict):
        unread = (*unread, *(f"objects.{key}" for key in unread_keys(objects, OBJECT_KEYS)))
    if isinstance(turns, list) and any(turn["from"] == "system" and turn["value"].strip() for turn in turns):
        unread = (*unread, "system message")
    stated = stated_unit(objects)
    return [
        *(
            RawRow(
                replace(row, files=files, unread=() if i else unread, licence=licence),
                usual[row.example.id],
                stated,
                defined=objects is not None,
            )
            for i, row in enumerate(rows)
        ),
        *bad,
    ]


def _turns(record: Mapping[str, Any], source: Source) -> tuple[Any, list[str]]:
    """The turns of a record in LLaVA's form, and the images in their contents."""
    turns = next((record[key] for key in TURN_KEYS if record.get(key) is not None), None)
    if turns is None and isinstance(record.get("prompt"), list) and isinstance(record.get("completion"), list):
        turns = [*record["prompt"], *record["completion"]]
    if turns is None:
        raise DataError(
            f"expected {', '.join(TURN_KEYS)}, or prompt and completion as lists of messages, found only "
            f"{', '.join(map(repr, record)) or 'none'}"[:500]
        )
    if not isinstance(turns, list):
        return turns, []
    embedded: list[str] = []
    plain = []
    for turn in turns:
        if not isinstance(turn, dict):
            raise DataError(f"expected messages as objects, found {short_repr(turn)}")
        speaker = turn.get("role", turn.get("from"))
        if not isinstance(speaker, str) or speaker not in ROLES:
            raise DataError(f"role: expected one of {', '.join(ROLES)}, found {short_repr(speaker)}")
        plain.append({"from": ROLES[speaker], "value": message_text(turn, embedded, source)})
    return plain, embedded


def message_text(turn: Mapping[str, Any], images: list[str], source: Source) -> str:
    """The text of a message, with a placeholder for each image; appends the images of its parts to ``images``."""
    content = turn.get("content", turn.get("value"))
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise DataError(f"content: expected text or a list of parts, found {short_repr(content)}")
    texts = []
    for part in content:
        kind = part if isinstance(part, str) else field_of(part, "type")
        if isinstance(part, str):
            texts.append(part)
        elif kind == "text":
            texts.append(field_of(part, "text"))
        elif kind in ("image", "image_url"):
            texts.append("<image>")
            if any(part.get(key) is not None for key in ("image", "image_url", "path", "url")):
                images.append(image_path("content", part, source))
        else:
            raise DataError(f"content: expected parts of type text or image, found {short_repr(part)}")
    return "\n".join(texts)


CHAT = Format(
    "chat records (messages, conversations; ms-swift, LLaMA-Factory, ShareGPT, TRL, Qwen grounding):"
    " JSON, JSON lines, Parquet",
    record_units,
    convert,
    options={"task": "auto", **FRAME_OPTIONS},
    settle=settle,
    stores_images=stores_images,
)
