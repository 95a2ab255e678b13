"""References for the probes: synthetic scenes or the records of a file."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from geovlm_ray.core.errors import UNREADABLE, DataError, reason_of
from geovlm_ray.core.files import text_lines
from geovlm_ray.core.schema import Example
from geovlm_ray.data.records import scoring_record
from geovlm_ray.data.scenes import SCENE_TASKS, scene_example
from geovlm_ray.data.sources import read_source

SCENES_PER_TASK = 16
FILE_PER_TASK = 48


def scene_references() -> list[Example]:
    """A fixed set of synthetic scenes of every task; images are not rendered, because probes use only text."""
    return [scene_example(task, seed=0, index=i) for task in SCENE_TASKS for i in range(SCENES_PER_TASK)]


def file_references(path: Path) -> list[Example]:
    """The first `FILE_PER_TASK` references of each task in a JSON Lines file.

    Records have the format of ``geovlm-ray score``, with optional responses, or the format `samples` if the first
    record has the key ``reference``.

    Raises:
        DataError: the file does not exist, a line cannot be read, or no record has a reference.
    """
    if '"reference"' in next(text_lines(path), ""):
        table, unreadable = read_source("samples", path)
        if unreadable:
            raise DataError(str(unreadable[0]))
        examples = [table.row(i).example for i in range(len(table))]
    else:
        examples = [_reference(path, number, line) for number, line in enumerate(text_lines(path), 1) if line.strip()]
    if not examples:
        raise DataError(f"{path}: expected records with a reference, found none")
    by_task: defaultdict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_task[example.task].append(example)
    return [example for of_task in by_task.values() for example in of_task[:FILE_PER_TASK]]


def _reference(path: Path, number: int, line: str) -> Example:
    try:
        value = json.loads(line)
        return scoring_record({"response": "", **value} if isinstance(value, dict) else value)[0]
    except UNREADABLE as error:
        raise DataError(f"{path}, line {number}: {reason_of(error)}") from error
