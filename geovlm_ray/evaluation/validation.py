"""Validation on held-out examples before and after training, with sampled and greedy completions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geovlm_ray.core.files import read_objects, write_atomically
from geovlm_ray.core.interfaces import RewardPool, RolloutPool
from geovlm_ray.core.schema import Prompt
from geovlm_ray.evaluation.constant_answers import ConstantAnswer
from geovlm_ray.tasks.grammar import ThinkMode, parse_response

MODES = ("sampled", "greedy")
Completion = dict[str, Any]
"""A completion: ``mode``, ``task``, ``id`` of the example, ``response``, total ``reward``."""
Rewards = dict[str, dict[str, list[float]]]
"""Total rewards by mode and task."""


def validation_completions(rollouts: RolloutPool, rewards: RewardPool, prompts: Sequence[Prompt]) -> list[Completion]:
    """One completion per prompt and mode, in prompt order within each mode."""
    return [
        {
            "mode": mode,
            "task": group.prompt.example.task,
            "id": group.prompt.example.id,
            "response": sample.text,
            "reward": reward,
        }
        for mode in MODES
        for group in rewards.score(rollouts.generate(prompts, group_size=1, greedy=mode == "greedy"))
        for sample, reward in zip(group.samples, group.rewards, strict=True)
    ]


def write_completions(rows: Sequence[Completion], path: Path) -> None:
    """Write completions as JSON lines."""
    write_atomically(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def read_completions(path: Path) -> list[Completion]:
    """Read the completions written by `write_completions`."""
    return read_objects(path)


def rewards_of(rows: Sequence[Completion]) -> Rewards:
    """Total rewards by mode and task, in completion order."""
    rewards: Rewards = {mode: {} for mode in MODES}
    for row in rows:
        rewards[row["mode"]].setdefault(row["task"], []).append(row["reward"])
    return rewards


def summarise(
    before: Sequence[Completion],
    after: Sequence[Completion],
    constants: Mapping[str, ConstantAnswer],
    think: ThinkMode = "required",
) -> dict[str, Any]:
    """Reward statistics on the same examples before and after training.

    For each mode, and under ``per_task`` for each task and mode: ``before``, ``after`` and the paired ``change``, each
    with mean, standard error and n. ``constant`` has the reward of each task's best constant answer on the same
    examples, and over all tasks under ``all``. ``most_common`` has the most frequent greedy answer of each task after
    training, with its share of the answers.
    """
    rewards_before, rewards_after = rewards_of(before), rewards_of(after)
    tasks = list(rewards_before[MODES[0]])
    constant: dict[str, dict[str, Any]] = {
        task: {"answer": constants[task].answer, **_statistics(constants[task].rewards)} for task in tasks
    }
    constant["all"] = _statistics([reward for task in tasks for reward in constants[task].rewards])
    return {
        **{mode: _changes(_all(rewards_before[mode]), _all(rewards_after[mode])) for mode in MODES},
        "per_task": {
            task: {mode: _changes(rewards_before[mode][task], rewards_after[mode][task]) for mode in MODES}
            for task in tasks
        },
        "constant": constant,
        "most_common": {task: _most_common(after, task, think) for task in tasks},
    }


def _changes(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    change = np.subtract(after, before)
    return {"before": _statistics(before), "after": _statistics(after), "change": _statistics(change)}


def _most_common(rows: Sequence[Completion], task: str, think: ThinkMode) -> dict[str, Any]:
    """The most frequent greedy answer of a task; a response that breaks the grammar counts as a whole."""
    responses = [row["response"] for row in rows if row["task"] == task and row["mode"] == "greedy"]
    pairs = [(response, parse_response(response, think)) for response in responses]
    answers = Counter(parsed.answer.strip() if parsed else response for response, parsed in pairs)
    answer, count = answers.most_common(1)[0]
    return {"answer": answer, "share": count / len(responses)}


def _all(rewards: dict[str, list[float]]) -> list[float]:
    return [value for values in rewards.values() for value in values]


def _statistics(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    array = np.asarray(values)
    se = float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else 0.0
    return {"mean": float(array.mean()), "se": se, "n": len(array)}
