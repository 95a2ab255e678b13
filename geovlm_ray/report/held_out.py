"""Held-out rewards before and after training, as rows for tables; read from the summary of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.rewards.config import RewardConfig

COLUMNS = (
    *("task", "decoding", "examples", "best constant", "majority class"),
    *("before", "after", "change [95% interval]"),
)
ANSWER_COLUMNS = ("task", "best constant answer", "majority class", "most common greedy answer after training", "share")
ALL = "all"
"""Name of the rows over all tasks."""
NONE = "–"
"""Cell without a value."""
NORMAL_QUANTILE = 1.96
"""Standard errors on each side of the mean in a 95% interval."""
MEASURABLE = 3.0
"""Standard errors from 0 at which a change counts as measured."""
MIN_DOMINANT_SHARE = 0.1
"""Smallest share of the answers that counts as dominant."""
DOMINANCE = 1.5
"""A dominant answer is this many times as frequent as the most frequent reference answer, or halfway from it to 1."""


def max_reward(reward: RewardConfig) -> float:
    """The maximum total reward of a completion."""
    return 2.0 if reward.combine == "sum" else 1.0


@dataclass(frozen=True)
class Estimate:
    """Mean of ``n`` rewards or of their paired changes, with its standard error."""

    mean: float
    se: float
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval of the mean under a normal distribution; None for a single value."""
        if self.n < 2:
            return None
        return self.mean - NORMAL_QUANTILE * self.se, self.mean + NORMAL_QUANTILE * self.se

    @property
    def errors(self) -> float:
        """Distance of the mean from 0 in standard errors; 0 for a single value."""
        if self.n < 2 or not self.mean:
            return 0.0
        return abs(self.mean) / self.se if self.se else inf

    @property
    def is_measurable(self) -> bool:
        """Whether the mean differs from 0 by at least `MEASURABLE` standard errors."""
        return self.errors >= MEASURABLE

    def text(self) -> str:
        """``mean ± se``."""
        return f"{self.mean:.3f} ± {self.se:.3f}"

    def interval_text(self) -> str:
        """``[low, high]``, or `NONE`."""
        return "[{:+.3f}, {:+.3f}]".format(*self.interval) if self.interval else NONE


@dataclass(frozen=True)
class HeldOutResult:
    """Rewards of one task (or `ALL`) in one decoding mode, on the same examples before and after training.

    ``constant`` is the mean reward of the best constant answer and ``majority`` that of the most frequent reference
    answer, None where it has no meaning; ``change`` is paired by example.
    """

    task: str
    decoding: str
    constant: float
    majority: float | None
    before: Estimate
    after: Estimate
    change: Estimate

    @property
    def majority_text(self) -> str:
        """``majority``, or `NONE`."""
        return NONE if self.majority is None else f"{self.majority:.3f}"

    @property
    def cells(self) -> tuple[str, ...]:
        """The columns `COLUMNS` as text."""
        change = f"{self.change.mean:+.3f} {self.change.interval_text()}"
        baselines = (f"{self.constant:.3f}", self.majority_text)
        return (self.task, self.decoding, f"{self.after.n}", *baselines, self.before.text(), self.after.text(), change)


@dataclass(frozen=True)
class TaskAnswers:
    """Answers of one task: the two constant ones, and the most common greedy answer on ``n`` held-out examples.

    ``share`` is the fraction of the latter after training, ``share_before`` the fraction of the same answer before
    training, and ``reference_share`` the fraction of the most frequent reference answer; the last two are None in
    summaries of earlier versions.
    """

    task: str
    best_constant: str
    majority: str | None
    most_common: str
    share: float
    n: int
    share_before: float | None = None
    reference_share: float | None = None

    @property
    def dominates(self) -> bool:
        """Whether the most common answer is far more frequent than any reference answer, beyond chance."""
        if self.reference_share is None:
            return False
        se = sqrt(self.reference_share * (1 - self.reference_share) / self.n)
        frequent = min(DOMINANCE * self.reference_share, (1 + self.reference_share) / 2)
        return self.share > max(MIN_DOMINANT_SHARE, frequent, self.reference_share + MEASURABLE * se)

    @property
    def cells(self) -> tuple[str, ...]:
        """The columns `ANSWER_COLUMNS` as text."""
        majority = NONE if self.majority is None else self.majority
        return (self.task, self.best_constant, majority, self.most_common, f"{self.share:.1%}")


def held_out_results(summary: Mapping[str, Any]) -> list[HeldOutResult]:
    """The rows of a run's ``summary.json``: all tasks, then each task; by decoding mode.

    Empty without held-out examples that can be compared, and for summaries of earlier versions, which have no constant
    answers. Raises DataError for an invalid entry.
    """
    heldout = summary.get("heldout") or {}
    if "constant" not in heldout:
        return []
    majorities = heldout.get("majority", {})
    try:
        tasks = heldout["per_task"]
        overall = {mode: heldout[mode] for modes in tasks.values() for mode in modes}
        return [
            HeldOutResult(
                task,
                mode,
                heldout["constant"][task]["mean"],
                majorities[task]["mean"] if task in majorities else None,
                *(_estimate(pair[part]) for part in ("before", "after", "change")),
            )
            for task, modes in {ALL: overall, **tasks}.items()
            for mode, pair in modes.items()
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"summary.json: heldout: expected rewards before and after training, found {error}") from error


def incomparable(summary: Mapping[str, Any]) -> str:
    """The reason why the rewards before and after training cannot be compared; empty if they can, or are not there."""
    return str((summary.get("heldout") or {}).get("incomparable", ""))


def task_answers(summary: Mapping[str, Any]) -> list[TaskAnswers]:
    """The most common and the constant answers of each task; empty where `held_out_results` is."""
    heldout = summary.get("heldout") or {}
    if "constant" not in heldout:
        return []
    return [
        TaskAnswers(
            task,
            heldout["constant"][task]["answer"],
            heldout.get("majority", {}).get(task, {}).get("answer"),
            common["answer"],
            common["share"],
            heldout["constant"][task]["n"],
            common.get("share_before"),
            common.get("reference_share"),
        )
        for task, common in heldout.get("most_common", {}).items()
    ]


def _estimate(values: Mapping[str, Any]) -> Estimate:
    return Estimate(values["mean"], values["se"], values["n"])
