"""Advantages of the completions of a batch, from their rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from geovlm_ray.core.schema import Sample, SampleGroup

Center = Literal["group", "leave_one_out", "batch", "none"]
Scale = Literal["group", "batch", "none"]
EPSILON = 1e-6
UNSCORED = frozenset({"timeout", "error", "invalid_record"})
"""Statuses of rewards that say nothing about the completion."""


@dataclass(frozen=True)
class AdvantageSettings:
    """How rewards become advantages (`advantages`)."""

    center: Center = "group"
    scale: Scale = "group"
    per_reward: bool = False
    mask_truncated: bool = False
    group_accuracy: tuple[float, float] = (0.0, 1.0)

    @property
    def within_groups(self) -> bool:
        """Whether a group in which all rewards are equal has no advantages."""
        return self.per_reward or self.center in ("group", "leave_one_out")


def is_counted(sample: Sample, mask_truncated: bool = False) -> bool:
    """Whether a completion gets an advantage: it was scored, and not cut off if ``mask_truncated``."""
    scored = sample.reward is not None and sample.reward.status not in UNSCORED
    return scored and not (mask_truncated and sample.finish_reason == "length")


def in_accuracy_range(group: SampleGroup, settings: AdvantageSettings) -> bool:
    """Whether the mean accuracy of a group's counted completions lies within ``group_accuracy``; False if it has none.

    Groups that are too hard or too easy teach little; thresholds on the mean accuracy are EasyR1's online filtering.
    """
    accuracies = [s.reward.accuracy for s in group.samples if s.reward and is_counted(s, settings.mask_truncated)]
    low, high = settings.group_accuracy
    return bool(accuracies) and low <= float(np.mean(accuracies)) <= high


def is_tied(group: SampleGroup, settings: AdvantageSettings) -> bool:
    """Whether all counted completions of a group have the same reward, so that it has no advantages of its own."""
    counted = zip(group.samples, group.rewards, strict=True)
    return len({reward for sample, reward in counted if is_counted(sample, settings.mask_truncated)}) < 2


def advantages(
    groups: Sequence[SampleGroup], settings: AdvantageSettings, penalties: Mapping[int, np.ndarray] | None = None
) -> dict[int, np.ndarray]:
    """Advantages of each group's completions, [G] float64, keyed by group id.

    Completions that do not count (`is_counted`) and groups outside ``group_accuracy`` get 0 and do not affect the
    others. ``penalties`` [G], keyed by group id, are added to the rewards.

    ``center`` subtracts the mean of the group (GRPO, DeepSeekMath, arXiv 2402.03300, section 4.1), of the group's other
    completions (RLOO, arXiv 2402.14740), or of the batch (REINFORCE++, arXiv 2501.03262). ``scale`` divides by the
    standard deviation of the group or of the batch's centred rewards; ``center=group scale=batch`` is REINFORCE++ with
    a group baseline, ``scale=none`` is without GRPO's difficulty bias (Dr. GRPO, arXiv 2503.20783). Standard deviations
    are those of a sample (divided by n - 1), as in TRL, verl, OpenRLHF and SkyRL.

    ``per_reward`` centres and scales format, accuracy and penalties on their own within each group, and scales their
    sum over the batch, so that none hides the others (GDPO, arXiv 2601.05242).

    Raises:
        ValueError: a completion was not scored.
    """
    sizes = [len(group.samples) for group in groups]
    batch = _Batch(
        np.repeat(np.arange(len(groups)), sizes),
        np.array(
            [in_accuracy_range(g, settings) and is_counted(s, settings.mask_truncated) for g, s in _pairs(groups)]
        ),
    )
    totals = np.concatenate([np.asarray(group.rewards, dtype=np.float64) for group in groups])
    penalty = np.concatenate([penalties[group.group_id] for group in groups]) if penalties else np.zeros(len(totals))
    if settings.per_reward:
        rewards = [s.reward for _, s in _pairs(groups) if s.reward is not None]
        columns = (np.array([r.format for r in rewards]), np.array([r.accuracy for r in rewards]), penalty)
        values = sum(batch.scaled(batch.centred(column, "group"), "group") for column in columns)
        values = batch.scaled(np.asarray(values), "batch")
    else:
        values = batch.scaled(batch.centred(totals + penalty, settings.center), settings.scale)
    per_group = np.split(np.where(batch.mask, values, 0.0), np.cumsum(sizes)[:-1])
    return {group.group_id: row for group, row in zip(groups, per_group, strict=True)}


def _pairs(groups: Sequence[SampleGroup]) -> list[tuple[SampleGroup, Sample]]:
    return [(group, sample) for group in groups for sample in group.samples]


@dataclass(frozen=True)
class _Batch:
    """Completions of a batch: the index of each one's group, and a mask of those that count, [S]."""

    group: np.ndarray
    mask: np.ndarray

    def centred(self, values: np.ndarray, center: Center) -> np.ndarray:
        """Values minus a mean over the completions that count, [S]; differences within rounding become 0."""
        if center == "none" or not self.mask.any():
            return values
        if center == "batch":
            centred = values - values[self.mask].mean()
        else:
            centred = values - self._group_sum(values) / self._group_size
        if center == "leave_one_out":
            centred = centred * self._group_size / np.maximum(self._group_size - 1, 1)
        return np.where(np.abs(centred) < EPSILON, 0.0, centred)

    def scaled(self, values: np.ndarray, scale: Scale) -> np.ndarray:
        """Values divided by the standard deviation of those that count, [S]; 0 where it is 0."""
        if scale == "none" or not self.mask.any():
            return values
        if scale == "batch":
            deviation = np.full(len(values), values[self.mask].std(ddof=1) if self.mask.sum() > 1 else 0.0)
        else:
            squares = (values - self._group_sum(values) / self._group_size) ** 2
            deviation = np.sqrt(self._group_sum(squares) / np.maximum(self._group_size - 1, 1))
        return np.where(deviation < EPSILON, 0.0, values / (deviation + EPSILON))

    @property
    def _group_size(self) -> np.ndarray:
        return np.maximum(self._group_sum(np.ones(len(self.group))), 1)

    def _group_sum(self, values: np.ndarray) -> np.ndarray:
        """Sum over the completions of the same group that count, [S]."""
        return np.bincount(self.group, np.where(self.mask, values, 0.0))[self.group]
