"""The generic format for custom data: JSON lines ``{"id", "task", "images", "prompt", "reference"}``.

References are written as in published datasets: boxes as text, classes as a string or a list. Records without a
reference are skipped, because they cannot be trained on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Box, Example, Target
from geovlm_ray.data.formats.base import Format, Source, Unit, field_of, image_reference, short_repr
from geovlm_ray.data.formats.prompts import question_of
from geovlm_ray.data.formats.streams import json_units
from geovlm_ray.data.records import target_from_json
from geovlm_ray.data.table import Row
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.boxes import parse_boxes

TASK_ALIASES = {
    "multilabel_classification_sar": "multilabel_classification",
    "change_detection_yes_no": "vqa",
    "change_detection_boxes": "object_detection",
}


def convert(unit: Unit, source: Source) -> Iterable[Row]:
    """The record of a line; none if it has no reference."""
    record = unit.value
    prompt = field_of(record, "prompt")
    if record.get("reference") is None:
        return
    name = field_of(record, "task")
    task = name if name in TASKS else TASK_ALIASES.get(name)
    if task is None:
        raise DataError(f"task: expected one of {', '.join([*TASKS, *TASK_ALIASES])}, found {name!r}")
    images = field_of(record, "images", list)
    if not images:
        raise DataError(f"images: expected a list of at least one path, found {images!r}")
    example = Example(
        id=str(field_of(record, "id", (str, int))),
        task=task,
        images=tuple(map(image_reference, images)),
        question=question_of(prompt),
        target=_target(task, record["reference"]),
        dataset=str(record.get("source", "")),
        split=str(record.get("split", "train")),
        reasoning=record.get("reasoning"),
    )
    yield Row(example, licence=str(record.get("licence", "")))


def _target(task: str, reference: Any) -> Target:
    if TASKS[task].target_kind != "boxes" or not isinstance(reference, str):
        return target_from_json(task, reference)
    parsed = parse_boxes(reference)
    if parsed is None or parsed.malformed:
        raise DataError(f"reference of {task}: expected boxes [[x1, y1, x2, y2]], found {short_repr(reference)}")
    return tuple(Box(coords) for coords in parsed.boxes)


SAMPLES = Format("JSON lines: id, task, images, prompt, reference", json_units, convert)
