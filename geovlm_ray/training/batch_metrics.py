"""Metrics of one training batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geovlm_ray.core.schema import SampleGroup


def batch_metrics(groups: Sequence[SampleGroup], version: int) -> dict[str, float]:
    """Rewards (overall and per task), lengths, staleness and the fraction of groups without reward variance.

    ``version`` is the learner's weight version when it trains on the batch. Lengths count the policy's own tokens.
    """
    samples = [s for g in groups for s in g.samples]
    scores = [s.reward for s in samples if s.reward is not None]
    lengths = [len(s.policy_logprobs) for s in samples]
    staleness = [version - s.weight_version for s in samples]
    metrics = {
        "reward/mean": _mean([r.total for r in scores]),
        "reward/format": _mean([r.format for r in scores]),
        "reward/accuracy": _mean([r.accuracy for r in scores]),
        "reward/not_ok": _mean([r.status != "ok" for r in scores]),
        "group/zero_variance": _mean([len(set(g.rewards)) == 1 for g in groups]),
        "completion/length_mean": _mean(lengths),
        "completion/cut_off": _mean([s.finish_reason == "length" for s in samples]),
        "rollout/tokens": float(sum(lengths)),
        "staleness/mean": _mean(staleness),
        "staleness/max": float(max(staleness)),
    }
    for task in dict.fromkeys(g.prompt.example.task for g in groups):
        task_groups = [g for g in groups if g.prompt.example.task == task]
        metrics[f"task/{task}/reward"] = _mean([r for g in task_groups for r in g.rewards])
        metrics[f"task/{task}/zero_variance"] = _mean([len(set(g.rewards)) == 1 for g in task_groups])
    return metrics


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
