"""Selected completions of a run, with images and reward components."""

from __future__ import annotations

import json
from pathlib import Path

from geovlm_ray.data.sample_rows import SampleRow, read_rows
from geovlm_ray.report.answers import shown_answer


def shown_steps(rollouts: Path) -> dict[int, list[list[SampleRow]]]:
    """The best, median and worst completion of one group per task, at the first, middle and last step.

    Raises DataError if a file of completions cannot be read.
    """
    files = sorted(rollouts.glob("step-*.parquet"))
    selected = dict.fromkeys(files[k] for k in (0, len(files) // 2, -1)) if files else {}
    return {int(file.stem.removeprefix("step-")): _groups(file) for file in selected}


def _groups(file: Path) -> list[list[SampleRow]]:
    groups: dict[int, list[SampleRow]] = {}
    for row in read_rows(file):
        groups.setdefault(row["group_id"], []).append(row)
    by_task: dict[str, list[SampleRow]] = {}
    for rows in groups.values():
        by_task.setdefault(rows[0]["task"], sorted(rows, key=lambda row: -row["reward"]))
    return [[_shown(rows[k]) for k in sorted({0, len(rows) // 2, len(rows) - 1})] for rows in by_task.values()]


def _shown(row: SampleRow) -> SampleRow:
    parts = {"format": row["format"], "accuracy": row["accuracy"], **json.loads(row["components"])}
    return {**shown_answer(row), "parts": [(name, f"{value:.3f}") for name, value in parts.items()]}
