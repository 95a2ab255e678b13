"""References to probe rewards on: those of drawn scenes, or of a file."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data.records import scoring_record
from geovlm_ray.data.scenes import SCENE_TASKS, scene_example
from geovlm_ray.data.sources import read_source

DRAWN_PER_TASK = 16
FILE_PER_TASK = 48


def drawn_references() -> list[Example]:
    """The same scenes of every task each time; nothing is drawn, as only their text counts here."""
    return [scene_example(task, seed=0, index=i) for task in SCENE_TASKS for i in range(DRAWN_PER_TASK)]


def file_references(path: Path) -> list[Example]:
    """The first `FILE_PER_TASK` references of each task of a file of JSON lines.

    Records are those of ``geovlm-ray score`` (their responses may be left out) or, where the first one has the
    key ``reference``, those of the format `samples`.

    Raises:
        DataError: there is no such file, a line cannot be read, or there is no reference at all.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected a file of JSON lines, found none")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if lines and '"reference"' in lines[0]:
        table = read_source("samples", path)
        examples = [table.row(i).example for i in range(len(table))]
    else:
        examples = [_reference(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    kept: defaultdict[str, list[Example]] = defaultdict(list)
    for example in examples:
        if len(kept[example.task]) < FILE_PER_TASK:
            kept[example.task].append(example)
    if not kept:
        raise DataError(f"{path}: expected records with a reference, found none")
    return [example for task in kept.values() for example in task]


def _reference(path: Path, number: int, line: str) -> Example:
    try:
        value = json.loads(line)
        return scoring_record({"response": "", **value} if isinstance(value, dict) else value)[0]
    except (ValueError, DataError) as error:
        raise DataError(f"{path}, line {number}: {error}") from error
