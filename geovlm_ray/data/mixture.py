"""Which task is drawn when: exact shares at every moment, as a pure function of the number of the draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import numpy as np

UNITS = 10_000
"""Shares that are no ratios of counts are rounded to parts of this many."""


def shares(counts: Sequence[int | None], mixture: str, temperature: float) -> list[int]:
    """Whole-number weights of tasks with these numbers of records (None: without end).

    ``balanced`` weighs all alike, ``natural`` by their numbers, ``temperature`` T by number ** (1 / T), rounded to
    ten-thousandths with every task kept (T = 1 is natural, T towards infinity balanced; Raffel et al., T5, 2020).
    Tasks without end weigh alike in every mixture.
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
    """Deals draws out to tasks so that after any n draws a task of share s has had n * s, rounded up or down.

    The rule is Tijdeman's (The chairman assignment problem, Discrete Mathematics 32, 1980): among the tasks that are
    due, the one whose next draw has the earliest deadline. It repeats after as many draws as the weights sum to.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        divisor = reduce(math.gcd, weights)
        self._weights = [w // divisor for w in weights]
        self._period = sum(self._weights)
        self._drawn = [0] * len(weights)
        self._dealt: list[tuple[int, int]] = []

    def __getitem__(self, draw: int) -> tuple[int, int]:
        """Task of a draw, and how many draws of that task came before it."""
        rounds, within = divmod(draw, self._period)
        while len(self._dealt) <= within:
            self._deal()
        task, before = self._dealt[within]
        return task, rounds * self._weights[task] + before

    def _deal(self) -> None:
        k, n = len(self._dealt) + 1, max(2 * len(self._weights) - 2, 1)
        total = self._period
        due = [i for i, w in enumerate(self._weights) if n * (w * k - total * self._drawn[i]) >= total]
        deadlines = [(n * (total * (self._drawn[i] + 1)) - total) / self._weights[i] for i in due]
        task = due[int(np.argmin(deadlines))]
        self._dealt.append((task, self._drawn[task]))
        self._drawn[task] += 1
