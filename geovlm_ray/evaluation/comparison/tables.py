"""The tables of a comparison as text: terminal and page show the same cells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geovlm_ray.evaluation.comparison.benchmarks import BenchmarkRow
from geovlm_ray.evaluation.comparison.compare import Comparison
from geovlm_ray.evaluation.comparison.heldout import HeldOutRow
from geovlm_ray.evaluation.comparison.paired import CLEAR, Paired
from geovlm_ray.evaluation.comparison.sources import EVALUATION, ComparedRun

TESTED = ("records", "mean", "against", "difference", "95% interval", "p", "p (Holm)", "verdict")
"""Columns behind those that say what was measured."""
HIGHER, LOWER, UNCLEAR = "higher", "lower", "unclear"
METHOD = (
    "Differences are paired: both answered the same records. The interval is that of a bootstrap over records "
    "({draws:,} draws, both answers of a record drawn together). p is two-sided: twice the smaller share of draws in "
    "which the difference is at most, or at least, 0, and never below 2^(1-k), where k records differ, which is the "
    "least that a sign test can give. p (Holm) is corrected for the number of rows of its table; below {clear:g} a "
    "difference is called clear. Of fewer than 50 records intervals are somewhat too narrow, and p too small. None of "
    "this says how another training, from another seed, would come out."
)


@dataclass(frozen=True)
class TestedLine:
    """A row of a table of tests: what was measured, and how one is against another."""

    what: tuple[str, ...]
    first: str
    other: str
    test: Paired
    p_holm: float
    percent: bool

    @property
    def verdict(self) -> str:
        """Whether the other one is clearly higher or lower."""
        if self.p_holm >= CLEAR:
            return UNCLEAR
        return HIGHER if self.test.difference.value > 0 else LOWER

    @property
    def cells(self) -> tuple[str, ...]:
        """What was measured, then the columns `TESTED`."""
        test, difference = self.test, self.test.difference
        return (
            *self.what,
            f"{test.n:,}",
            f"{self.other} {self.number(test.other)}",
            f"{self.first} {self.number(test.first)}",
            self.number(difference.value, sign=True),
            f"{self.number(difference.low, sign=True)} to {self.number(difference.high, sign=True)}",
            p_value(test.p),
            p_value(self.p_holm),
            self.verdict,
        )

    def number(self, value: float, sign: bool = False) -> str:
        """A value in the unit of the table."""
        plus = "+" if sign else ""
        return f"{100 * value:{plus}.1f}" if self.percent else f"{value:{plus}.3f}"


def held_out_lines(rows: Sequence[HeldOutRow]) -> list[TestedLine]:
    """Held-out rewards; what is measured are task and decoding."""
    return [TestedLine((row.task, row.mode), row.first, row.other, row.test, row.p_holm, False) for row in rows]


def benchmark_lines(rows: Sequence[BenchmarkRow]) -> list[TestedLine]:
    """Scores in percent; what is measured is the benchmark."""
    return [TestedLine((r.met.benchmark,), r.met.first, r.met.other, r.met.test, r.p_holm, True) for r in rows]


def paper_table(found: Comparison) -> tuple[list[str], list[tuple[str, ...]]]:
    """Header and rows of the published metrics, in percent; a benchmark's name stands at its first metric.

    With it stand the numbers of records, where they are not all the same.
    """
    letters = [s.letter for s in found.sources if any(s.letter in row.values for row in found.paper)]
    rows, before = [], ""
    for row in found.paper:
        values = (f"{100 * row.values[k]:.2f}" if k in row.values else "" for k in letters)
        differ = ", ".join(f"{k} {n:,}" for k, n in row.records.items()) if len(set(row.records.values())) > 1 else ""
        name = f"{row.benchmark} (records: {differ})" if differ else row.benchmark
        rows.append(("" if row.benchmark == before else name, row.metric, *values))
        before = row.benchmark
    return ["benchmark", "metric", *letters], rows


def unpaired(rows: Sequence[BenchmarkRow]) -> list[str]:
    """In sentences, which benchmarks have records that only one of two has."""
    sentences = []
    for met in (row.met for row in rows):
        counts = {met.first: met.only_first, met.other: met.only_other}
        alone = " and ".join(f"{n:,} that only {letter} answered" for letter, n in counts.items() if n)
        if alone:
            sentences.append(f"{met.benchmark}: of its records, {alone} are left out of means and tests.")
    return sentences


def described(source: ComparedRun) -> str:
    """What a source is, in a line."""
    evaluation, config = source.evaluation, source.config
    on = ""
    if evaluation:
        n = len(evaluation.benchmarks)
        on = f"on {n} benchmark{'' if n == 1 else 's'}"
    if source.kind == EVALUATION or config is None:
        return f"evaluation of {evaluation.model if evaluation else ''} {on}"
    steps = source.metrics[-1]["step"] if source.metrics else 0
    newest = f"; its newest evaluation, {evaluation.folder.name}, {on}" if evaluation else ""
    return f"training run, {steps:.0f} of {config.run.steps} steps{newest}"


def method(found: Comparison) -> str:
    """How differences are tested."""
    return METHOD.format(draws=found.draws, clear=CLEAR)


def verdicts(found: Comparison) -> list[str]:
    """What came out, in sentences."""
    sentences = []
    whole: dict[tuple[str, str], str] = {}
    for line in held_out_lines(found.heldout):
        # The first rows of two runs are those of all their tasks.
        if whole.setdefault((line.first, line.other), line.what[0]) == line.what[0]:
            sentences.append(f"Held-out reward, {line.what[0]}, {line.what[1]}: {_compared(line, len(found.heldout))}.")
    lines = benchmark_lines(found.benchmarks)
    for first, other in dict.fromkeys((line.first, line.other) for line in lines):
        theirs = [line for line in lines if (line.first, line.other) == (first, other)]
        named = {kind: [line.what[0] for line in theirs if line.verdict == kind] for kind in (HIGHER, LOWER)}
        rest = len(theirs) - sum(map(len, named.values()))
        counts = [f"is clearly {kind} on {len(names)} ({', '.join(names)})" for kind, names in named.items() if names]
        counts += [f"shows no clear difference on {rest}"] if rest else []
        of = f"{len(theirs)} benchmark{'' if len(theirs) == 1 else 's'}"
        sentences.append(f"Score on {of}: {other}, against {first}, {' and '.join(counts)}.")
    return sentences


def plain(value: Any) -> str:
    """A value of the configuration as text."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def p_value(p: float) -> str:
    """A p value with three decimals."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _compared(line: TestedLine, rows: int) -> str:
    test, difference = line.test, line.test.difference
    low, high = line.number(difference.low, sign=True), line.number(difference.high, sign=True)
    p = f"p {'' if line.p_holm < 0.001 else '= '}{p_value(line.p_holm)}"
    said = "no clear difference" if line.verdict == UNCLEAR else f"{line.other} is clearly {line.verdict}"
    return (
        f"{line.other} earns {line.number(test.other)} and {line.first} {line.number(test.first)}, a difference of "
        f"{line.number(difference.value, sign=True)} (95% interval {low} to {high}; {p}, corrected for {rows} rows): "
        f"{said}"
    )
