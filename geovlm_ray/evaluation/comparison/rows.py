"""Rows of the tables of paired tests, as numbers and as text."""

from __future__ import annotations

from typing import ClassVar

from geovlm_ray.evaluation.comparison.paired import ALPHA, PairedTest

TEST_COLUMNS = ("records", "mean", "against", "difference", "95% interval", "p", "p (Holm)", "verdict")
"""Columns after those that name the measurement."""
HIGHER, LOWER, UNCLEAR, EQUAL = "higher", "lower", "unclear", "no difference"


class PairedRow:
    """Base of rows: the paired test of ``other`` against ``first``, p values corrected for the rows of the table."""

    percent: ClassVar[bool]
    first: str
    other: str
    test: PairedTest
    p_holm: float

    @property
    def labels(self) -> tuple[str, ...]:
        """The measurement, such as the benchmark."""
        raise NotImplementedError

    @property
    def verdict(self) -> str:
        """Whether ``other`` is significantly higher or lower than ``first``, or equal on every resample."""
        if not any(vars(self.test.difference).values()):
            return EQUAL
        if self.p_holm >= ALPHA:
            return UNCLEAR
        return HIGHER if self.test.difference.value > 0 else LOWER

    @property
    def means(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Letter and mean of ``other``, then of ``first``."""
        return (self.other, self._number(self.test.other)), (self.first, self._number(self.test.first))

    @property
    def statistics(self) -> tuple[str, str, str, str]:
        """Difference, its interval, and p without and with correction."""
        value, low, high = (self._number(x, "+") for x in vars(self.test.difference).values())
        p, p_holm = ("<0.001" if p < 0.001 else f"{p:.3f}" for p in (self.test.p, self.p_holm))
        return value, f"{low} to {high}", p, p_holm

    @property
    def limit(self) -> float:
        """The larger distance of the ends of the interval from 0."""
        return max(abs(self.test.difference.low), abs(self.test.difference.high))

    @property
    def cells(self) -> tuple[str, ...]:
        """``labels``, then the columns `TEST_COLUMNS`."""
        means = (f"{letter} {mean}" for letter, mean in self.means)
        return (*self.labels, f"{self.test.n:,}", *means, *self.statistics, self.verdict)

    def _number(self, value: float, sign: str = "") -> str:
        return f"{100 * value:{sign}.1f}" if self.percent else f"{value:{sign}.3f}"
