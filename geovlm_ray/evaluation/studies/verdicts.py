"""Verdicts on the expectation of a study, and the sentence that answers its question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from geovlm_ray.evaluation.studies.results import ALL, Difference, RunResult, difference
from geovlm_ray.evaluation.studies.study import Measure, Study

Runs = Mapping[str, Mapping[int, RunResult]]
MEASURES: dict[Measure, str] = {"greedy": "greedy answers after training", "sampled": "samples of the last steps"}


@dataclass(frozen=True)
class VariantDifference:
    """Difference ``one - other`` of two variants on a task or all tasks, of at least one seed.

    A difference below ``equivalence`` percentage points counts as none.
    """

    one: str
    other: str
    task: str
    measure: Measure
    difference: Difference
    equivalence: float

    @property
    def effect(self) -> int:
        """1 or -1 if the 95% interval is above or below 0, else 0."""
        return (self.difference.low > 0) - (self.difference.high < 0)

    @property
    def is_small(self) -> bool:
        """Whether the interval is within ``equivalence`` of 0: two one-sided tests at 2.5% each (Schuirmann 1987)."""
        return -self.equivalence < self.difference.low and self.difference.high < self.equivalence

    def verdict(self, above: str = "supports", below: str = "contradicts") -> str:
        """The verdict in words; ``above`` and ``below`` are those for a positive and a negative effect."""
        if not self.effect:
            return f"no difference beyond {self._points}" if self.is_small else f"undecided after {self.seeds}"
        word = above if self.effect > 0 else below
        return f"{word}, but the difference is below {self._points}" if self.is_small else word

    @property
    def interval(self) -> str:
        """The interval in points; empty with one seed."""
        change = self.difference
        return f"{change.low:+.1f} to {change.high:+.1f}" if len(change.seeds) > 1 else ""

    @property
    def seeds(self) -> str:
        """The number of seeds, with its noun."""
        n = len(self.difference.seeds)
        return f"{n} seed{'' if n == 1 else 's'}"

    @property
    def _points(self) -> str:
        return f"{self.equivalence:g} points"


def expected_comparisons(study: Study, runs: Runs) -> list[VariantDifference]:
    """The variant that is expected to be better against the other, over all tasks, by each measure that both have."""
    return _comparisons(study, runs, study.expectation.better, study.expectation.worse, ALL)


def baseline_comparisons(study: Study, runs: Runs) -> list[VariantDifference]:
    """Every other variant against the first one, over all tasks and on each, by each measure that both have."""
    first, *others = study.variants
    tasks = (ALL, *study.tasks) if len(study.tasks) > 1 else (ALL,)
    return [c for name in others for task in tasks for c in _comparisons(study, runs, name, first, task)]


def answer(study: Study, runs: Runs) -> str:
    """One sentence that answers the question, by the first measure of the study."""
    comparisons, answers = expected_comparisons(study, runs), study.answers
    if not comparisons:
        return f"There is no answer yet {answers.choice}: the runs of this comparison are missing."
    found = comparisons[0]
    mean = found.difference.mean
    beginning = {
        1: answers.supports,
        -1: answers.contradicts,
        0: f"It {'makes' if found.is_small else 'is'} {found.verdict()} {answers.choice}",
    }[found.effect]
    measured = "held-out records" if found.measure == "greedy" else MEASURES[found.measure]
    interval = f"95% interval {found.interval}, " if found.interval else ""
    small = f", a difference below {found.equivalence:g} points" if found.effect and found.is_small else ""
    return (
        f"{beginning}: `{found.one}` scored {abs(mean):.1f} points "
        f"{'higher' if mean >= 0 else 'lower'} than `{found.other}` on {measured} ({interval}{found.seeds}){small}."
    )


def _comparisons(study: Study, runs: Runs, one: str, other: str, task: str) -> list[VariantDifference]:
    changes = {measure: difference(runs[one], runs[other], measure, task) for measure in study.measures}
    return [
        VariantDifference(one, other, task, m, change, study.equivalence)
        for m, change in changes.items()
        if change.seeds
    ]
