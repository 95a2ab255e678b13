"""Tables and summary sentences of a comparison as text, shared by terminal and page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geovlm_ray.evaluation.comparison.benchmarks import BenchmarkRow
from geovlm_ray.evaluation.comparison.compare import Comparison, Setting
from geovlm_ray.evaluation.comparison.heldout import HeldOutRow
from geovlm_ray.evaluation.comparison.paired import ALPHA, PairedTest
from geovlm_ray.evaluation.comparison.sources import EVALUATION, ComparedRun

TEST_COLUMNS = ("records", "mean", "against", "difference", "95% interval", "p", "p (Holm)", "verdict")
"""Columns after those that name the measurement."""
HIGHER, LOWER, UNCLEAR = "higher", "lower", "unclear"
METHOD = (
    "Differences are paired by record. Intervals are percentile intervals of a bootstrap over records ({draws:,} "
    "resamples, which keep both answers of a record together). p is two-sided: twice the smaller share of resamples "
    "with a difference of at most, or at least, 0, and never below 2^(1-k), the smallest p of a sign test with k "
    "differing records. p (Holm) is corrected for the number of rows of its table; differences with p (Holm) below "
    "{alpha:g} are significant. With fewer than 50 records, intervals are somewhat too narrow and p values somewhat "
    "too small. The tests do not cover variation between training seeds."
)


@dataclass(frozen=True)
class ComparisonRow:
    """A row of a test table: the measurement (``labels``) and the paired test of ``other`` against ``first``."""

    labels: tuple[str, ...]
    first: str
    other: str
    test: PairedTest
    p_holm: float
    percent: bool

    @property
    def verdict(self) -> str:
        """Whether ``other`` is significantly higher or lower than ``first``."""
        if self.p_holm >= ALPHA:
            return UNCLEAR
        return HIGHER if self.test.difference.value > 0 else LOWER

    @property
    def records(self) -> str:
        """Number of paired records."""
        return f"{self.test.n:,}"

    @property
    def means(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Letter and mean of ``other``, then of ``first``."""
        return (self.other, self.number(self.test.other)), (self.first, self.number(self.test.first))

    @property
    def statistics(self) -> tuple[str, str, str, str]:
        """Difference, its interval, and p without and with correction."""
        value, low, high = (self.number(x, sign=True) for x in vars(self.test.difference).values())
        return value, f"{low} to {high}", format_p(self.test.p), format_p(self.p_holm)

    @property
    def limit(self) -> float:
        """The larger distance of the ends of the interval from 0."""
        return max(abs(self.test.difference.low), abs(self.test.difference.high))

    @property
    def cells(self) -> tuple[str, ...]:
        """``labels``, then the columns `TEST_COLUMNS`."""
        means = (f"{letter} {mean}" for letter, mean in self.means)
        return (*self.labels, self.records, *means, *self.statistics, self.verdict)

    def number(self, value: float, sign: bool = False) -> str:
        """A value in the unit of the table: percent, or reward."""
        plus = "+" if sign else ""
        return f"{100 * value:{plus}.1f}" if self.percent else f"{value:{plus}.3f}"


def held_out_lines(rows: Sequence[HeldOutRow]) -> list[ComparisonRow]:
    """Rows of the held-out rewards, labelled by task and decoding mode."""
    return [ComparisonRow((row.task, row.mode), row.first, row.other, row.test, row.p_holm, False) for row in rows]


def benchmark_lines(rows: Sequence[BenchmarkRow]) -> list[ComparisonRow]:
    """Rows of the benchmark scores in percent, labelled by benchmark."""
    return [
        ComparisonRow((p.benchmark,), p.first, p.other, p.test, row.p_holm, True)
        for row in rows
        for p in (row.comparison,)
    ]


def setting_tables(comparison: Comparison) -> list[tuple[list[str], list[tuple[str, ...]]]]:
    """Header and rows of the differing settings, a table for each kind of source."""
    by_kind: dict[str, list[Setting]] = {}
    for setting in comparison.settings:
        by_kind.setdefault(setting.kind, []).append(setting)
    return [
        ([f"settings of the {kind}s", *settings[0].values], [(s.key, *map(_text, s.values.values())) for s in settings])
        for kind, settings in by_kind.items()
    ]


def paper_table(comparison: Comparison) -> tuple[list[str], list[tuple[str, ...]]]:
    """Header and rows of the published metrics, in percent.

    Only the first metric of a benchmark has the benchmark's name, with the record counts if they differ by source.
    """
    letters = [s.letter for s in comparison.sources if any(s.letter in row.values for row in comparison.paper)]
    rows, previous = [], ""
    for row in comparison.paper:
        values = (f"{100 * row.values[k]:.2f}" if k in row.values else "" for k in letters)
        counts = ", ".join(f"{k} {n:,}" for k, n in row.records.items()) if len(set(row.records.values())) > 1 else ""
        name = f"{row.benchmark} (records: {counts})" if counts else row.benchmark
        rows.append(("" if row.benchmark == previous else name, row.metric, *values))
        previous = row.benchmark
    return ["benchmark", "metric", *letters], rows


def unpaired_notes(rows: Sequence[BenchmarkRow]) -> list[str]:
    """Notes on benchmarks with records that only one of two sources answered."""
    sentences = []
    for pair in (row.comparison for row in rows):
        counts = {pair.first: pair.only_first, pair.other: pair.only_other}
        unpaired = ", ".join(f"{n:,} only by {letter}" for letter, n in counts.items() if n)
        if unpaired:
            sentences.append(f"{pair.benchmark}: means and tests exclude records that only one answered ({unpaired}).")
    return sentences


def describe_source(source: ComparedRun) -> str:
    """One line on the kind and size of a source."""
    evaluation, config = source.evaluation, source.config
    on = ""
    if evaluation:
        n = len(evaluation.benchmarks)
        on = f"on {n} benchmark{'' if n == 1 else 's'}"
    if source.kind == EVALUATION or config is None:
        return f"evaluation of {evaluation.model if evaluation else ''} {on}"
    steps = source.metrics[-1]["step"] if source.metrics else 0
    newest = f"; newest evaluation: {evaluation.folder.name} {on}" if evaluation else ""
    return f"training run, {steps:.0f} of {config.run.steps} steps{newest}"


def method_text(comparison: Comparison) -> str:
    """Description of the statistical tests."""
    return METHOD.format(draws=comparison.draws, alpha=ALPHA)


def verdicts(comparison: Comparison) -> list[str]:
    """Results in sentences."""
    sentences = []
    first_tasks: dict[tuple[str, str], str] = {}
    for line in held_out_lines(comparison.heldout):
        # The first rows of a pair of runs cover all their tasks.
        if first_tasks.setdefault((line.first, line.other), line.labels[0]) == line.labels[0]:
            task, mode = line.labels
            sentences.append(f"Held-out reward, {task}, {mode}: {_compared(line, len(comparison.heldout))}.")
    lines = benchmark_lines(comparison.benchmarks)
    for first, other in dict.fromkeys((line.first, line.other) for line in lines):
        pair = [line for line in lines if (line.first, line.other) == (first, other)]
        named = {sign: [line.labels[0] for line in pair if line.verdict == sign] for sign in (HIGHER, LOWER)}
        rest = len(pair) - sum(map(len, named.values()))
        counts = [
            f"significantly {sign} on {len(names)} ({', '.join(names)})" for sign, names in named.items() if names
        ]
        counts += [f"no significant difference on {rest}"] if rest else []
        benchmarks = f"{len(pair)} benchmark{'' if len(pair) == 1 else 's'}"
        sentences.append(f"Score on {benchmarks}, {other} against {first}: {', '.join(counts)}.")
    return sentences


def format_p(p: float) -> str:
    """A p value with three decimals."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _text(value: Any) -> str:
    """A configuration value as text."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _compared(line: ComparisonRow, rows: int) -> str:
    (_, other), (_, first) = line.means
    difference, interval, _, p_holm = line.statistics
    p = f"p {p_holm}" if p_holm.startswith("<") else f"p = {p_holm}"
    verdict = (
        "no significant difference" if line.verdict == UNCLEAR else f"{line.other} is significantly {line.verdict}"
    )
    return (
        f"{line.other} {other}, {line.first} {first}, difference {difference} (95% interval {interval}; {p}, "
        f"Holm-corrected for {rows} rows): {verdict}"
    )
