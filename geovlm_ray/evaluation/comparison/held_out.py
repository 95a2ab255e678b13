"""Held-out rewards after training, compared between runs with the same held-out records and reward."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from typing import Any

import numpy as np

from geovlm_ray.evaluation.comparison.paired import PairedTest, holm, paired_bootstrap
from geovlm_ray.evaluation.comparison.rows import PairedRow
from geovlm_ray.evaluation.comparison.sources import RUN, ComparedRun
from geovlm_ray.evaluation.validation import MODES

ALL = "all tasks"
SCENES = "scenes"
EXECUTION_SETTINGS: Any = {"time_limit_s": True, "think": True, "sbert": {"device", "batch_size", "cache_size"}}
"""Reward settings that do not affect the value of a reward, in the form of pydantic's ``exclude``."""


@dataclass(frozen=True)
class HeldOutRow(PairedRow):
    """One task, or all tasks, in one decoding mode: a run against the first run with the same held-out records."""

    percent = False
    task: str
    mode: str
    first: str
    other: str
    test: PairedTest
    p_holm: float = math.nan

    @property
    def labels(self) -> tuple[str, ...]:
        """Task and decoding mode."""
        return (self.task, self.mode)


def held_out_rows(sources: Sequence[ComparedRun], draws: int) -> tuple[list[HeldOutRow], list[str]]:
    """Rows of the table, and notes on what is not compared and why."""
    runs = [source for source in sources if source.kind == RUN]
    comparable = [source for source in runs if source.held_out]
    notes = [
        f"{source} has no held-out rewards: evaluation.num_examples is 0, or the run has not finished."
        for source in runs
        if not source.held_out
    ]
    groups: dict[str, list[ComparedRun]] = {}
    for source in comparable:
        groups.setdefault(json.dumps(_conditions(source), sort_keys=True), []).append(source)
    notes += [_mismatch_note(comparable[0], members) for members in list(groups.values())[1:]]
    pairs = [(members[0], other) for members in groups.values() for other in members[1:]]
    rows = []
    for first, other in pairs:
        for task, mode in product(_row_tasks(first), MODES):
            test = paired_bootstrap(_rewards(first, mode, task), _rewards(other, mode, task), draws)
            rows.append(HeldOutRow(task, mode, first.letter, other.letter, test))
    corrected = holm([row.test.p for row in rows])
    return [replace(row, p_holm=p) for row, p in zip(rows, corrected, strict=True)], notes


def _conditions(source: ComparedRun) -> dict[str, Any]:
    """Settings and records that must match for rewards to be paired by record."""
    assert source.config is not None
    assert source.held_out is not None
    data = source.config.data
    conditions: dict[str, Any] = {"data.source": data.source}
    # Held-out scenes do not depend on data.seed.
    if data.source != SCENES:
        conditions |= {"data.path": data.path, "data.splits": list(data.splits), "data.seed": data.seed}
    conditions["held-out records"] = ", ".join(f"{task} {n}" for task, n in sorted(source.held_out.counts().items()))
    conditions["digest of held-out records"] = source.held_out.records
    reward = source.config.reward.model_dump(mode="json", exclude=EXECUTION_SETTINGS)
    return conditions | {f"reward.{key}": value for key, value in reward.items()}


def _mismatch_note(first: ComparedRun, others: Sequence[ComparedRun]) -> str:
    expected, actual = _conditions(first), _conditions(others[0])
    differing = [key for key in {**expected, **actual} if expected.get(key) != actual.get(key)]
    differences = "; ".join(f"{key} is {actual.get(key)!s}, not {expected.get(key)!s}" for key in differing)
    names = " and ".join(map(str, others))
    return (
        f"Held-out rewards of {names} are not comparable with those of {first}, because records or reward differ: "
        f"{differences}."
    )


def _row_tasks(source: ComparedRun) -> list[str]:
    assert source.held_out is not None
    tasks = list(source.held_out.counts())
    return [ALL, *tasks] if len(tasks) > 1 else tasks


def _rewards(source: ComparedRun, mode: str, task: str) -> np.ndarray:
    """Rewards [n] of a task, or of all tasks in sorted task order."""
    by_task: dict[str, list[float]] = getattr(source.held_out, mode)
    values = chain.from_iterable(by_task[name] for name in sorted(by_task)) if task == ALL else by_task[task]
    return np.fromiter(values, dtype=np.float64)
