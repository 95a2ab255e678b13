"""Task mixture: assigns a task to each sample index, deterministically and with exact proportions at every prefix."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

UNITS = 10_000
"""Resolution of temperature weights: they are rounded to multiples of 1 / `UNITS`."""


def task_weights(counts: Sequence[int | None], mixture: str, temperature: float) -> list[int]:
    """Integer sampling weights of tasks, given their numbers of records (None: unlimited).

    ``balanced`` gives equal weights, ``natural`` the numbers of records, and ``temperature`` T the normalized weights
    count ** (1 / T) (T5, Raffel et al., 2020) in units of 1 / `UNITS`, at least one unit each; T = 1 is natural,
    infinite T is balanced. If any task is unlimited, all weights are equal.
    """
    finite = [n for n in counts if n is not None]
    if mixture == "balanced" or len(finite) < len(counts):
        return [1] * len(counts)
    if mixture == "natural":
        return finite
    powers = np.array(finite, dtype=float) ** (1 / temperature)
    exact = powers / powers.sum() * UNITS
    weights = np.maximum(np.floor(exact), 1).astype(int)
    missing = UNITS - int(weights.sum())
    for i in np.argsort(np.floor(exact) - exact, kind="stable")[: max(missing, 0)]:
        weights[i] += 1
    return [int(w) for w in weights]


class Schedule:
    """Assigns samples to tasks: among any first n samples, a task of proportion p has floor(n * p) or ceil(n * p).

    Algorithm: Tijdeman, "The chairman assignment problem", Discrete Mathematics 32, 1980. Of the eligible tasks, choose
    the one whose next sample has the earliest deadline. The schedule repeats with the sum of the weights as period.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        divisor = math.gcd(*weights)
        self._weights = [w // divisor for w in weights]
        self._period = sum(self._weights)
        self._task_counts = [0] * len(weights)
        self._assigned: list[tuple[int, int]] = []

    def __getitem__(self, index: int) -> tuple[int, int]:
        """Task of a sample, and the number of earlier samples of that task."""
        periods, offset = divmod(index, self._period)
        while len(self._assigned) <= offset:
            self._assign_next()
        task, previous = self._assigned[offset]
        return task, periods * self._weights[task] + previous

    def _assign_next(self) -> None:
        k, n = len(self._assigned) + 1, max(2 * len(self._weights) - 2, 1)
        total = self._period
        counts = self._task_counts
        eligible = [i for i, w in enumerate(self._weights) if n * (w * k - total * counts[i]) >= total]
        deadlines = [(n * (total * (counts[i] + 1)) - total) / self._weights[i] for i in eligible]
        task = eligible[int(np.argmin(deadlines))]
        self._assigned.append((task, counts[task]))
        counts[task] += 1
