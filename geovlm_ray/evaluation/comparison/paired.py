"""Paired bootstrap test of the difference between two measurements of the same records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geovlm_ray.evaluation.metrics.bootstrap import Interval, percentile_interval

DRAWS = 10_000
"""Default number of bootstrap resamples."""
SEED = 0
ALPHA = 0.05
"""Significance level for Holm-corrected p values."""
DECIMALS = 12
"""Decimals to which resampled means are rounded, so that differences that cancel out are exactly 0."""
MAX_VALUES_IN_MEMORY = 2**22
"""Resampled values that are held in memory at a time."""


@dataclass(frozen=True)
class PairedTest:
    """Means of two measurements of n records, the difference ``other - first``, and its two-sided p value."""

    n: int
    first: float
    other: float
    difference: Interval
    p: float


def paired_bootstrap(first: np.ndarray, other: np.ndarray, draws: int = DRAWS, seed: int = SEED) -> PairedTest:
    """Test two measurements, [n] each with n > 0, of the same records in the same order.

    Resampling draws n records with replacement and keeps both measurements of a record together. p is twice the smaller
    share of resamples with a mean difference of at most, or at least, 0, with the observed sample counted as one more
    resample (Davison & Hinkley 1997). It is never below 2^(1-k), the smallest p of a sign test with k differing
    records. The seed determines which records are resampled, so exchanging the measurements only changes signs.

    Raises:
        ValueError: there are no records, or the shapes differ.
    """
    if first.shape != other.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"expected two arrays of the same n > 0 records, found {first.shape} and {other.shape}")
    changes = other - first
    value = float(changes.mean())
    means = _resampled_means(changes, draws, seed).round(DECIMALS)
    smaller_tail = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    p = max(2 * (1 + smaller_tail) / (1 + draws), 2.0 ** (1 - np.count_nonzero(changes)))
    interval = percentile_interval(value, means)
    return PairedTest(len(changes), float(first.mean()), float(other.mean()), interval, min(float(p), 1.0))


def holm(p: Sequence[float]) -> list[float]:
    """Holm-corrected p values, in the same order (Holm 1979).

    Rejecting those below a level bounds the family-wise error rate by that level.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values)
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    return corrected.tolist()


def _resampled_means(values: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Means of ``draws`` resamples of n values with replacement, [draws]."""
    rng, n = np.random.default_rng(seed), len(values)
    chunk = max(1, MAX_VALUES_IN_MEMORY // n)
    sizes = (min(chunk, draws - done) for done in range(0, draws, chunk))
    return np.concatenate([values[rng.integers(n, size=(size, n), dtype=np.int32)].mean(axis=1) for size in sizes])
