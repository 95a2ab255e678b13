"""Validation on held-out examples before and after training, with sampled and greedy completions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from geovlm_ray.core.files import read_objects, text_digest, write_atomically
from geovlm_ray.core.interfaces import RewardPool, RolloutPool
from geovlm_ray.core.schema import Example, Prompt
from geovlm_ray.data.images import ROOT_END
from geovlm_ray.data.sample_rows import example_columns
from geovlm_ray.evaluation.constant_answers import ConstantAnswer
from geovlm_ray.report.held_out import ALL, Estimate
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.grammar import ThinkMode, parse_response

MODES = ("sampled", "greedy")
Completion = dict[str, Any]
"""A completion: ``mode``, ``id`` of the example and its other `example_columns`, ``response``, total ``reward``.

Files of earlier versions have no columns of the example but its ``task``.
"""
Rewards = dict[str, dict[str, list[float]]]
"""Total rewards by mode and task."""


def validation_completions(rollouts: RolloutPool, rewards: RewardPool, prompts: Sequence[Prompt]) -> list[Completion]:
    """One completion per prompt and mode, in prompt order within each mode."""
    return [
        {"mode": mode, "id": columns.pop("example_id"), **columns, "response": sample.text, "reward": reward}
        for mode in MODES
        for group in rewards.score(rollouts.generate(prompts, group_size=1, greedy=mode == "greedy"))
        for sample, reward in zip(group.samples, group.rewards, strict=True)
        for columns in (example_columns(group.prompt.example),)
    ]


def write_completions(rows: Sequence[Completion], path: Path) -> None:
    """Write completions as JSON lines."""
    write_atomically(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def read_completions(path: Path) -> list[Completion]:
    """Read the completions written by `write_completions`."""
    return read_objects(path)


def are_of(rows: Sequence[Completion], examples: Sequence[Example]) -> bool:
    """Whether completions are of these examples, with equal questions, references and images, in their order."""
    expected = [_identity({**columns, "id": columns["example_id"]}) for columns in map(example_columns, examples)]
    return [_identity(row) for row in rows] == expected * len(MODES)


def records_digest(rows: Sequence[Completion]) -> str:
    """Digest of ids, images and references of the examples of completions, in their order.

    Boxes and questions are left out: their unit depends on the model.
    """
    boxes = {name for name, task in TASKS.items() if task.target_kind in ("boxes", "grounded")}
    keys = [(row["id"], row["task"], _images(row), row["task"] in boxes or row.get("target")) for row in rows]
    return text_digest(json.dumps(keys))


def _identity(row: Completion) -> tuple[Any, ...]:
    """What identifies the example of a completion."""
    keys = ("id", "task", "pixels", "question", "target", "frame", "dialect")
    return (_images(row), *(row.get(key) for key in keys))


def _images(row: Completion) -> list[str]:
    """The images of a completion, wherever they are stored."""
    return [str(image).rpartition(ROOT_END)[2] for image in row.get("images", ())]


def rewards_of(rows: Sequence[Completion]) -> Rewards:
    """Total rewards by mode and task, in completion order."""
    rewards: Rewards = {mode: {} for mode in MODES}
    for row in rows:
        rewards[row["mode"]].setdefault(row["task"], []).append(row["reward"])
    return rewards


def held_out_summary(
    before: Sequence[Completion],
    after: Sequence[Completion],
    constants: Mapping[str, ConstantAnswer],
    think: ThinkMode = "required",
    majorities: Mapping[str, ConstantAnswer] = MappingProxyType({}),
) -> dict[str, Any]:
    """Reward statistics on the same examples before and after training.

    For each mode, and under ``per_task`` for each task and mode: ``before``, ``after`` and the paired ``change``, each
    with mean, standard error and n, the change also with its 95% ``interval``. ``constant`` has the reward of each
    task's best constant answer on the same examples, and over all tasks under ``all``; ``majority`` that of the
    ``majorities``. ``most_common`` has the most frequent greedy answer of each task after training, with its share of
    the answers after and before training, and the share of the most frequent reference answer.
    """
    rewards_before, rewards_after = rewards_of(before), rewards_of(after)
    tasks = list(rewards_before[MODES[0]])
    constant = {task: _constant(constants[task]) for task in tasks}
    constant[ALL] = _statistics([reward for task in tasks for reward in constants[task].rewards])
    return {
        **{mode: _changes(_all(rewards_before[mode]), _all(rewards_after[mode])) for mode in MODES},
        "per_task": {
            task: {mode: _changes(rewards_before[mode][task], rewards_after[mode][task]) for mode in MODES}
            for task in tasks
        },
        "constant": constant,
        "majority": {task: _constant(majorities[task]) for task in tasks if task in majorities},
        "most_common": {task: _most_common(before, after, task, think) for task in tasks},
    }


def _constant(answer: ConstantAnswer) -> dict[str, Any]:
    return {"answer": answer.answer, **_statistics(answer.rewards)}


def _changes(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    change = _statistics(np.subtract(after, before))
    interval = Estimate(**change).interval
    return {"before": _statistics(before), "after": _statistics(after), "change": {**change, "interval": interval}}


def _most_common(
    before: Sequence[Completion], after: Sequence[Completion], task: str, think: ThinkMode
) -> dict[str, Any]:
    """The most frequent greedy answer of a task, and how often it and the most frequent reference answer occur."""
    answers, answers_before = (_greedy_answers(rows, task, think) for rows in (after, before))
    answer, count = answers.most_common(1)[0]
    targets = Counter(r["target"] for r in after if r["task"] == task and r["mode"] == "greedy" and "target" in r)
    return {
        "answer": answer,
        "share": count / answers.total(),
        "share_before": answers_before[answer] / answers_before.total(),
        "reference_share": max(targets.values()) / targets.total() if targets else None,
    }


def _greedy_answers(rows: Sequence[Completion], task: str, think: ThinkMode) -> Counter[str]:
    """Greedy answers of a task; a response that breaks the grammar counts as a whole."""
    responses = [row["response"] for row in rows if row["task"] == task and row["mode"] == "greedy"]
    pairs = [(response, parse_response(response, think)) for response in responses]
    return Counter(parsed.answer.strip() if parsed else response for response, parsed in pairs)


def _all(rewards: dict[str, list[float]]) -> list[float]:
    return [value for values in rewards.values() for value in values]


def _statistics(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    array = np.asarray(values)
    se = float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else 0.0
    return {"mean": float(array.mean()), "se": se, "n": len(array)}
