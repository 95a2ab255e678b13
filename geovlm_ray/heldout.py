"""Held-out scenes before and after training, sampled at the training temperature and greedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from geovlm_ray.loop import Parts
from geovlm_ray.schema import Prompt, SampleGroup

MODES = ("sampled", "greedy")
Rewards = dict[str, dict[str, list[float]]]


def held_out_rewards(parts: Parts, prompts: Sequence[Prompt]) -> Rewards:
    """Total reward of one completion per prompt, by mode and task, in the order of the prompts."""
    return {
        mode: _by_task(parts.rewards.score(parts.rollouts.generate(prompts, group_size=1, greedy=mode == "greedy")))
        for mode in MODES
    }


def summarise(before: Rewards, after: Rewards) -> dict[str, Any]:
    """Mean, standard error and number, before and after, for each mode and for each task in each mode."""
    tasks = list(before[MODES[0]])
    return {
        **{
            mode: {"before": _statistics(_all(before[mode])), "after": _statistics(_all(after[mode]))} for mode in MODES
        },
        "per_task": {
            task: {
                mode: {"before": _statistics(before[mode][task]), "after": _statistics(after[mode][task])}
                for mode in MODES
            }
            for task in tasks
        },
    }


def _by_task(groups: Sequence[SampleGroup]) -> dict[str, list[float]]:
    rewards: dict[str, list[float]] = {}
    for group in groups:
        rewards.setdefault(group.prompt.example.task, []).extend(group.rewards)
    return rewards


def _all(rewards: dict[str, list[float]]) -> list[float]:
    return [value for values in rewards.values() for value in values]


def _statistics(values: Sequence[float]) -> dict[str, float]:
    array = np.asarray(values)
    se = float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else 0.0
    return {"mean": float(array.mean()), "se": se, "n": len(array)}
