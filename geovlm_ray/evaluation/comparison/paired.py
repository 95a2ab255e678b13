"""Significance of a difference between two measurements of the same records, by paired bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geovlm_ray.evaluation.metrics.bootstrap import LEVEL, Interval

DRAWS = 10_000
SEED = 0
CLEAR = 0.05
"""A corrected p value below it is called a clear difference."""
DECIMALS = 12
"""Means are rounded to so many, so that differences that cancel out count as 0."""
AT_ONCE = 2**22
"""Records that are held in memory at a time."""


@dataclass(frozen=True)
class Paired:
    """Means of two measurements of n records, the difference ``other - first``, and its two-sided p value."""

    n: int
    first: float
    other: float
    difference: Interval
    p: float


def paired(first: np.ndarray, other: np.ndarray, draws: int = DRAWS, seed: int = SEED) -> Paired:
    """Compare two measurements, [n] each and at least one, of the same records in the same order.

    Records are drawn with replacement, n each time, and both measurements of a record go together. The interval is the
    percentile one (Efron & Tibshirani 1993), widened to hold the value. p is twice the smaller share of draws whose
    difference is at most, or at least, 0, the observed records counted as one more draw (Davison & Hinkley 1997), and
    never below 2^(1-k), where k records differ: the smallest p of the sign test, below which no number of draws can
    bring so few. The same seed draws the same records, so that exchanging the measurements changes signs alone.

    Raises:
        ValueError: there are no records, or not as many of both.
    """
    if first.shape != other.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"expected two arrays of the same n > 0 records, found {first.shape} and {other.shape}")
    changes = other - first
    value = float(changes.mean())
    means = _resampled_means(changes, draws, seed).round(DECIMALS)
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    fewer = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    p = max(2 * (1 + fewer) / (1 + draws), 2.0 ** (1 - np.count_nonzero(changes)))
    interval = Interval(value, min(float(low), value), max(float(high), value))
    return Paired(len(changes), float(first.mean()), float(other.mean()), interval, min(float(p), 1.0))


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected for their number, in the same order (Holm 1979).

    The chance that any of those that state a difference where there is none falls below a level is at most the level.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values)
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    return corrected.tolist()


def _resampled_means(values: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Means of ``draws`` samples of n values, drawn with replacement."""
    rng, n = np.random.default_rng(seed), len(values)
    step = max(1, AT_ONCE // n)
    sizes = (min(step, draws - done) for done in range(0, draws, step))
    return np.concatenate([values[rng.integers(n, size=(size, n), dtype=np.int32)].mean(axis=1) for size in sizes])
