"""Bootstrap confidence intervals: compute per-record quantities once, then resample records by count.

A statistic maps the count of each record, integers [n], to named values; it omits a value that is undefined for the
counted records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
    """Percentile interval (Efron & Tibshirani 1993) of every value, widened to include the value itself.

    Each resample draws n records with replacement. Resamples in which a value is undefined do not enter its interval.
    The same seed selects the same records for every statistic.
    """
    rng = np.random.default_rng(seed)
    point_estimates = statistic(np.ones(n, dtype=np.int64))
    resampled = [statistic(np.bincount(rng.integers(n, size=n), minlength=n)) for _ in range(resamples)]
    tail = (100 - LEVEL) / 2
    result = {}
    for name, value in point_estimates.items():
        sample = [values[name] for values in resampled if name in values] or [value]
        low, high = np.percentile(sample, [tail, 100 - tail])
        result[name] = Interval(value, min(float(low), value), max(float(high), value))
    return result


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
