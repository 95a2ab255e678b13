"""Metrics of one training batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from geovlm_ray.core.schema import Sample, SampleGroup
from geovlm_ray.learner.advantages import AdvantageSettings, is_counted, is_tied


def batch_metrics(groups: Sequence[SampleGroup], version: int) -> dict[str, float]:
    """Rewards, lengths, entropy (overall and per task), staleness and the fraction of groups without reward variance.

    ``version`` is the learner's weight version when it trains on the batch. Lengths and entropies are those of the
    tokens that the policy wrote.
    """
    samples = [s for g in groups for s in g.samples]
    scores = [s.reward for s in samples if s.reward is not None]
    staleness = [version - s.weight_version for s in samples]
    metrics = {
        "reward/mean": _mean(r.total for r in scores),
        "reward/format": _mean(r.format for r in scores),
        "reward/accuracy": _mean(r.accuracy for r in scores),
        "reward/not_ok": _mean(r.status != "ok" for r in scores),
        "reward/not_scored": _mean(not is_counted(s) for s in samples),
        "group/zero_variance": _zero_variance(groups),
        "completion/length_mean": _mean(len(s.policy_logprobs) for s in samples),
        "completion/cut_off": _cut_off(samples),
        "entropy/sampled": _sampled_entropy(samples),
        "rollout/tokens": float(sum(len(s.policy_logprobs) for s in samples)),
        "staleness/mean": _mean(staleness),
        "staleness/max": float(max(staleness)),
    }
    for task in dict.fromkeys(g.prompt.example.task for g in groups):
        task_groups = [g for g in groups if g.prompt.example.task == task]
        task_samples = [s for g in task_groups for s in g.samples]
        metrics |= {
            f"task/{task}/reward": _mean(r for g in task_groups for r in g.rewards),
            f"task/{task}/zero_variance": _zero_variance(task_groups),
            f"task/{task}/length_mean": _mean(len(s.policy_logprobs) for s in task_samples),
            f"task/{task}/cut_off": _cut_off(task_samples),
            f"task/{task}/entropy": _sampled_entropy(task_samples),
        }
    return metrics


def _zero_variance(groups: Sequence[SampleGroup]) -> float:
    return _mean(is_tied(g, AdvantageSettings()) for g in groups)


def _cut_off(samples: Sequence[Sample]) -> float:
    return _mean(s.finish_reason == "length" for s in samples)


def _sampled_entropy(samples: Sequence[Sample]) -> float:
    """Entropy in nats per token, estimated as minus the mean log-prob of the sampled tokens."""
    return -_mean(logprob for s in samples for logprob in s.policy_logprobs)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.mean(found)) if found else float("nan")
