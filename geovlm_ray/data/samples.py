"""Reader of sample files: one JSON object per line, ``{"id", "task", "images", "prompt", "reference"}``.

References are written as the field's datasets write them: boxes as text, classes as a string or a list.
Records without a reference are passed over, as nothing can be learnt from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from geovlm_ray.data.records import target_from_json
from geovlm_ray.errors import DataError
from geovlm_ray.files import read_text
from geovlm_ray.schema import Box, Example, Target
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.boxes import parse_boxes

TASK_OF = {
    "multilabel_classification_sar": "multilabel_classification",
    "change_detection_yes_no": "vqa",
    "change_detection_boxes": "object_detection",
}


def read_samples(path: Path) -> Iterator[Example]:
    """All records of a file that have a reference.

    Raises:
        DataError: a line is no JSON object, or lacks a key, or its reference does not fit its task.
    """
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise DataError(f"expected an object, found {type(record).__name__}")
            if record.get("reference") is not None:
                yield _example(record)
        except (ValueError, RecursionError, DataError) as error:
            raise DataError(f"{path}, line {number}: {error}") from error


def _example(record: Mapping[str, Any]) -> Example:
    for key in ("id", "task", "images", "prompt"):
        if key not in record:
            raise DataError(f"expected the key {key!r}, found only {', '.join(map(repr, record))}")
    task = TASK_OF.get(str(record["task"]), record["task"])
    if not isinstance(task, str) or task not in TASKS:
        raise DataError(f"task: expected one of {', '.join([*TASKS, *TASK_OF])}, found {record['task']!r}")
    images = record["images"]
    if not isinstance(images, list) or not images or not all(isinstance(i, str) for i in images):
        raise DataError(f"images: expected a list of at least one path, found {images!r}")
    question = _question(str(record["prompt"]))
    if not question:
        raise DataError(f"prompt: expected a question, found {record['prompt']!r}")
    return Example(
        id=str(record["id"]),
        task=task,
        images=tuple(images),
        question=question,
        target=_target(task, record["reference"]),
        dataset=str(record.get("source", "")),
    )


def _question(prompt: str) -> str:
    """The prompt's words alone; some datasets store the two characters backslash and n for a line end."""
    return " ".join(prompt.replace("<image>", " ").replace("\\n", " ").split())


def _target(task: str, reference: Any) -> Target:
    if TASKS[task].target_kind != "boxes" or not isinstance(reference, str):
        return target_from_json(task, reference)
    found = parse_boxes(reference)
    if found is None or found.malformed:
        raise DataError(f"reference of {task}: expected boxes [[x1, y1, x2, y2]], found {reference[:120]!r}")
    return tuple(Box(coords) for coords in found.boxes)
