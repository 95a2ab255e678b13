"""Bootstrap confidence intervals: compute per-record quantities once, then resample records by count.

A statistic maps the count of each record, integers [n], to named values; it omits a value that is undefined for the
counted records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

RESAMPLES = 1000
LEVEL = 95.0

Statistic = Callable[[np.ndarray], dict[str, float]]


@dataclass(frozen=True)
class Interval:
    """A value and its 95% confidence interval; ``low <= value <= high``."""

    value: float
    low: float
    high: float


def intervals(statistic: Statistic, n: int, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Interval]:
    """The interval of every value.

    Each resample draws n records with replacement. Resamples in which a value is undefined do not enter its interval.
    The same seed selects the same records for every statistic.
    """
    rng = np.random.default_rng(seed)
    point_estimates = statistic(np.ones(n, dtype=np.int64))
    resampled = [statistic(np.bincount(rng.integers(n, size=n), minlength=n)) for _ in range(resamples)]
    samples = {name: [values[name] for values in resampled if name in values] for name in point_estimates}
    return {name: percentile_interval(value, samples[name] or [value]) for name, value in point_estimates.items()}


def percentile_interval(value: float, resampled: Sequence[float] | np.ndarray) -> Interval:
    """Percentile interval of a value from its resamples (Efron & Tibshirani 1993), widened to include the value."""
    tail = (100 - LEVEL) / 2
    low, high = map(float, np.percentile(resampled, [tail, 100 - tail]))
    return Interval(value, min(low, value), max(high, value))


def mean_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Mean of values [n], n > 0, with its interval."""
    return intervals(means({"mean": np.asarray(values)}), len(values))["mean"]


def counted_mean(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """``n``, mean (``value``) and interval (``low``, ``high``) of values [n], n > 0."""
    return {"n": len(values), **asdict(mean_interval(values))}


def means(columns: Mapping[str, np.ndarray]) -> Statistic:
    """Statistic: the mean of each column; a column has one value per record."""
    matrix = np.stack([np.asarray(values, dtype=np.float64) for values in columns.values()], axis=1)

    def averages(counts: np.ndarray) -> dict[str, float]:
        total = counts.sum()
        return dict(zip(columns, (counts @ matrix / total).tolist(), strict=True)) if total else {}

    return averages


def grouped(statistic: Statistic, groups: Mapping[str, np.ndarray]) -> Statistic:
    """A statistic over all records and, as ``NAME GROUP``, over each group; groups are bool arrays [n]."""

    def by_group(counts: np.ndarray) -> dict[str, float]:
        values = statistic(counts)
        for group, members in groups.items():
            values |= {f"{name} {group}": value for name, value in statistic(counts * members).items()}
        return values

    return by_group
