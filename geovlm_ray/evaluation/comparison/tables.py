"""Tables and summary sentences of a comparison as text, shared by terminal and page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from geovlm_ray.evaluation.comparison.benchmarks import BenchmarkComparison
from geovlm_ray.evaluation.comparison.compare import Comparison, SettingDifference
from geovlm_ray.evaluation.comparison.paired import ALPHA
from geovlm_ray.evaluation.comparison.rows import EQUAL, HIGHER, LOWER, UNCLEAR, PairedRow
from geovlm_ray.evaluation.comparison.sources import EVALUATION, ComparedRun

METHOD = (
    "Differences are paired by record. Intervals are percentile intervals of a bootstrap over records ({draws:,} "
    "resamples, which keep both answers of a record together). p is two-sided: twice the smaller share of resamples "
    "with a difference of at most, or at least, 0, and never below 2^(1-k), the smallest p of a sign test with k "
    "differing records. p (Holm) is corrected for the number of rows of its table; differences with p (Holm) below "
    "{alpha:g} are significant. With fewer than 50 records, intervals are somewhat too narrow and p values somewhat "
    "too small. The tests do not cover variation between training seeds."
)
WORDS = {
    HIGHER: "significantly higher",
    LOWER: "significantly lower",
    UNCLEAR: "no significant difference",
    EQUAL: "no difference",
}


def setting_tables(comparison: Comparison) -> list[tuple[list[str], list[tuple[str, ...]]]]:
    """Header and rows of the differing settings, a table for each kind of source."""
    by_kind: dict[str, list[SettingDifference]] = {}
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


def unpaired_notes(rows: Sequence[BenchmarkComparison]) -> list[str]:
    """Notes on benchmarks with records that only one of two sources answered."""
    sentences = []
    for pair in rows:
        counts = {pair.first: pair.only_first, pair.other: pair.only_other}
        unpaired = ", ".join(f"{n:,} only by {letter}" for letter, n in counts.items() if n)
        if unpaired:
            sentences.append(f"{pair.benchmark}: means and tests exclude records that only one answered ({unpaired}).")
    return sentences


def describe_source(source: ComparedRun) -> str:
    """One line on the kind and size of a source."""
    evaluation, config = source.evaluation, source.config
    on = f"on {_benchmarks(len(evaluation.benchmarks))}" if evaluation else ""
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
    for line in comparison.held_out:
        # The first rows of a pair of runs cover all their tasks.
        if first_tasks.setdefault((line.first, line.other), line.task) == line.task:
            compared = _compared(line, len(comparison.held_out))
            sentences.append(f"Held-out reward, {line.task}, {line.mode}: {compared}.")
    for first, other in dict.fromkeys((line.first, line.other) for line in comparison.benchmarks):
        pair = [line for line in comparison.benchmarks if (line.first, line.other) == (first, other)]
        counts = []
        for sign, words in WORDS.items():
            names = [line.benchmark for line in pair if line.verdict == sign]
            listed = f" ({', '.join(names)})" if sign in (HIGHER, LOWER) else ""
            counts += [f"{words} on {len(names)}{listed}"] if names else []
        sentences.append(f"Score on {_benchmarks(len(pair))}, {other} against {first}: {', '.join(counts)}.")
    return sentences


def _text(value: Any) -> str:
    """A configuration value as text."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _benchmarks(n: int) -> str:
    return f"{n} benchmark{'' if n == 1 else 's'}"


def _compared(line: PairedRow, rows: int) -> str:
    (_, other), (_, first) = line.means
    difference, interval, _, p_holm = line.statistics
    p = f"p {p_holm}" if p_holm.startswith("<") else f"p = {p_holm}"
    verdict = WORDS[line.verdict]
    if line.verdict in (HIGHER, LOWER):
        verdict = f"{line.other} is {verdict}"
    return (
        f"{line.other} {other}, {line.first} {first}, difference {difference} (95% interval {interval}; {p}, "
        f"Holm-corrected for {rows} rows): {verdict}"
    )
