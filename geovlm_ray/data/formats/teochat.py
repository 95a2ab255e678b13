"""TEOChatlas, the dataset of TEOChat (ermongroup/TEOChat; jirvin16/TEOChatlas on Hugging Face): conversations about
image sequences.

A record is ``{"video": [path, ...], "conversations", "timestamp", "task", "polygon"}``; ``<video>`` in a prompt stands
for ``Image 1: <image>Image 2: <image>...``. Boxes are ``[x1, y1, x2, y2]`` in percent. As in TEOChat, images with
dates are sorted by date; duplicates are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data.formats.base import Format, Source, Unit, short_repr
from geovlm_ray.data.formats.conversations import conversation_rows, images_of, record_id, without
from geovlm_ray.data.formats.prompts import check_percent, example_of, task_of
from geovlm_ray.data.formats.record_fields import split_of_file
from geovlm_ray.data.formats.record_files import unread_keys
from geovlm_ray.data.formats.streams import json_units
from geovlm_ray.data.table import Row
from geovlm_ray.tasks import TASKS

KNOWN_KEYS = ("video", "timestamp", "task", "polygon")
"""Keys that are kept as they are."""
_PLACEHOLDER = re.compile(r"(?:Image \d+:\s*)?<image>")
_BOX_OPTIONAL = re.compile(r"\bdo not (?:output|include|give) (?:a |any )?bounding box", re.IGNORECASE)


def convert(unit: Unit, source: Source) -> Iterable[Row | Unit]:
    """The records of a conversation."""
    record = unit.value
    if not isinstance(record, dict) or "conversations" not in record:
        raise DataError(f"expected an object with 'conversations', found {short_repr(record)}")
    images, split = _images(record), split_of_file(unit.file, source)

    def example(id: str, question: str, answers: tuple[str]) -> Example:
        prompt, (answer,) = _PLACEHOLDER.sub(" ", question), answers
        task = task_of(prompt, answer, len(images))
        if TASKS[task].target_kind == "boxes" and "[" not in answer and _BOX_OPTIONAL.search(prompt):
            answer = "[]"
        return check_percent(example_of(id, prompt, (answer,), images, dataset="TEOChatlas", split=split, task=task))

    extra = without(record, "id", "image", "conversations")
    if list(images) == record.get("video"):
        del extra["video"]
    rows, bad = conversation_rows(unit, record["conversations"], record_id(record, unit, "id"), example, extra)
    return (*(replace(row, unread=unread_keys(row.extra, KNOWN_KEYS)) for row in rows), *bad)


def _images(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The image sequence, sorted by date if each image has one."""
    images = images_of(record, "video" if "video" in record else "image")
    dates = record.get("timestamp")
    if not isinstance(dates, list) or len(dates) != len(images):
        return images
    try:
        order = sorted(range(len(images)), key=[date.fromisoformat(str(d)[:10]) for d in dates].__getitem__)
    except ValueError:
        return images
    return tuple(images[i] for i in order)


TEOCHAT = Format("TEOChatlas: conversations about image sequences, JSON or JSON lines", json_units, convert)
