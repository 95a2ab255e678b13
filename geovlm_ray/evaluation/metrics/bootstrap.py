"""Bootstrap confidence intervals: evaluate once, resample the records.

A statistic is a function of how often each record is counted, integers [n], and returns named values; a name is
left out where the counted records do not define it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

DRAWS = 1000
LEVEL = 95.0

Statistic = Callable[[np.ndarray], dict[str, float]]


@dataclass(frozen=True)
class Interval:
    """A value and its 95% confidence interval; ``low <= value <= high``."""

    value: float
    low: float
    high: float


def intervals(statistic: Statistic, n: int, draws: int = DRAWS, seed: int = 0) -> dict[str, Interval]:
    """Every value of a statistic with its percentile interval (Efron & Tibshirani 1993), widened to hold the value.

    Records are drawn with replacement, n each time; draws that do not define a value are left out of its interval.
    The same seed draws the same records for every statistic.
    """
    rng = np.random.default_rng(seed)
    whole = statistic(np.ones(n, dtype=np.int64))
    drawn = [statistic(np.bincount(rng.integers(n, size=n), minlength=n)) for _ in range(draws)]
    tail = (100 - LEVEL) / 2
    found = {}
    for name, value in whole.items():
        sample = [values[name] for values in drawn if name in values] or [value]
        low, high = np.percentile(sample, [tail, 100 - tail])
        found[name] = Interval(value, min(float(low), value), max(float(high), value))
    return found


def means(columns: Mapping[str, np.ndarray]) -> Statistic:
    """The statistic of plain means; each column holds one value per record."""
    matrix = np.stack([np.asarray(values, dtype=np.float64) for values in columns.values()], axis=1)

    def averages(counts: np.ndarray) -> dict[str, float]:
        total = counts.sum()
        return dict(zip(columns, (counts @ matrix / total).tolist(), strict=True)) if total else {}

    return averages


def grouped(statistic: Statistic, groups: Mapping[str, np.ndarray]) -> Statistic:
    """A statistic of all records and, named ``NAME GROUP``, of each group's; groups are bool arrays [n]."""

    def by_group(counts: np.ndarray) -> dict[str, float]:
        values = statistic(counts)
        for group, members in groups.items():
            values |= {f"{name} {group}": value for name, value in statistic(counts * members).items()}
        return values

    return by_group
