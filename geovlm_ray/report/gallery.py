"""Selected completions of a run, with images and reward components."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from geovlm_ray.core.errors import UNREADABLE, reason_of
from geovlm_ray.data.sample_rows import SampleRow, read_rows
from geovlm_ray.report.answers import shown_answer


@dataclass(frozen=True)
class ShownStep:
    """The best, median and worst completion of one group per task, or why they cannot be shown (``missing``)."""

    name: str
    groups: Sequence[Sequence[SampleRow]] = ()
    missing: str = ""


def shown_steps(rollouts: Path) -> list[ShownStep]:
    """The first, the middle and the last step with a file of completions."""
    files = sorted(rollouts.glob("step-*.parquet"))
    selected = dict.fromkeys(files[k] for k in (0, len(files) // 2, -1)) if files else {}
    return [_step(file) for file in selected]


def _step(file: Path) -> ShownStep:
    name = re.sub("^step-0*", "", file.stem)
    try:
        return ShownStep(name, [[_shown(row) for row in group] for group in best_median_worst(read_rows(file))])
    except UNREADABLE as error:
        return ShownStep(name, missing=f"{file.name} cannot be shown: {reason_of(error)}")


def best_median_worst(rows: Iterable[SampleRow]) -> list[list[SampleRow]]:
    """The completions of one group per task with the highest, the median and the lowest reward."""
    groups: dict[int, list[SampleRow]] = {}
    for row in rows:
        groups.setdefault(row["group_id"], []).append(row)
    by_task: dict[str, list[SampleRow]] = {}
    for group in groups.values():
        by_task.setdefault(group[0]["task"], sorted(group, key=lambda row: -row["reward"]))
    return [[group[k] for k in sorted({0, len(group) // 2, len(group) - 1})] for group in by_task.values()]


def _shown(row: SampleRow) -> SampleRow:
    parts = {"format": row["format"], "accuracy": row["accuracy"], **json.loads(row["components"])}
    return {**shown_answer(row), "parts": [(name, f"{value:.3f}") for name, value in parts.items()]}
