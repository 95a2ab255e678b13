"""Held-out rewards after training, compared between runs that were held the same records out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from geovlm_ray.evaluation.comparison.paired import Paired, holm, paired
from geovlm_ray.evaluation.comparison.sources import RUN, ComparedRun
from geovlm_ray.evaluation.validation import MODES

ALL = "all tasks"
SCENES = "scenes"
NOT_OF_THE_REWARD: Any = {"time_limit_s": True, "think": True, "sbert": {"device", "batch_size", "cache_size"}}
"""Settings of the reward that leave open what an answer is worth."""


@dataclass(frozen=True)
class HeldOutRow:
    """A task, or all, in one way of decoding: another run against the first one that was held the same records out."""

    task: str
    mode: str
    first: str
    other: str
    test: Paired
    p_holm: float


def held_out_rows(sources: Sequence[ComparedRun], draws: int) -> tuple[list[HeldOutRow], list[str]]:
    """Rows of the table, and in sentences what is not compared and why."""
    runs = [source for source in sources if source.kind == RUN]
    having = [source for source in runs if source.heldout]
    notes = [
        f"{source} has no held-out rewards: evaluation.num_examples is 0, or it is not finished."
        for source in runs
        if not source.heldout
    ]
    groups: dict[str, list[ComparedRun]] = {}
    for source in having:
        groups.setdefault(json.dumps(_conditions(source), sort_keys=True), []).append(source)
    notes += [_why_not(having[0], members) for members in list(groups.values())[1:]]
    pairs = [(members[0], other) for members in groups.values() for other in members[1:]]
    parts = [(first, other, task, mode) for first, other in pairs for task in _parts(first) for mode in MODES]
    tests = [
        paired(_rewards(first, mode, task), _rewards(other, mode, task), draws) for first, other, task, mode in parts
    ]
    rows = [
        HeldOutRow(task, mode, first.letter, other.letter, test, p)
        for (first, other, task, mode), test, p in zip(parts, tests, holm([test.p for test in tests]), strict=True)
    ]
    return rows, notes


def _conditions(source: ComparedRun) -> dict[str, Any]:
    """All that must be the same for rewards to be comparable record by record."""
    assert source.config is not None
    assert source.heldout is not None
    data = source.config.data
    found: dict[str, Any] = {"data.source": data.source}
    # Held-out scenes are the same whatever the seed of those that are trained on.
    if data.source != SCENES:
        found |= {"data.path": data.path, "data.splits": list(data.splits), "data.seed": data.seed}
    found["held-out records"] = ", ".join(f"{task} {n}" for task, n in sorted(source.heldout.counts().items()))
    reward = source.config.reward.model_dump(mode="json", exclude=NOT_OF_THE_REWARD)
    return found | {f"reward.{key}": value for key, value in reward.items()}


def _why_not(first: ComparedRun, others: Sequence[ComparedRun]) -> str:
    ours, theirs = _conditions(first), _conditions(others[0])
    differing = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    said = "; ".join(f"{key} is {theirs.get(key)!s}, not {ours.get(key)!s}" for key in differing)
    names = " and ".join(map(str, others))
    return (
        f"Held-out rewards of {names} cannot be compared with those of {first}, as they are of other records or "
        f"another reward: {said}."
    )


def _parts(source: ComparedRun) -> list[str]:
    assert source.heldout is not None
    tasks = list(source.heldout.counts())
    return [ALL, *tasks] if len(tasks) > 1 else tasks


def _rewards(source: ComparedRun, mode: str, task: str) -> np.ndarray:
    """Rewards of a task, or of all in one order for every run."""
    by_task: dict[str, list[float]] = getattr(source.heldout, mode)
    values = chain.from_iterable(by_task[name] for name in sorted(by_task)) if task == ALL else by_task[task]
    return np.fromiter(values, dtype=np.float64)
