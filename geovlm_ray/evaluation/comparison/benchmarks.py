"""Paired comparison of benchmark scores by record, and the records with the largest score differences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter

from geovlm_ray.core.validation import validated
from geovlm_ray.evaluation.comparison.paired import PairedTest, holm, paired_bootstrap
from geovlm_ray.evaluation.comparison.rows import PairedRow
from geovlm_ray.evaluation.comparison.sources import ComparedRun
from geovlm_ray.evaluation.predictions import Predictions

MAX_EXAMPLES = 4
"""Records shown per benchmark for each direction of the score difference."""
RecordKey = tuple[str, str, str, int]
OnProgress = Callable[[int, str], None]


class PredictionRecord(BaseModel):
    """The columns of a predictions row that a comparison uses."""

    example_id: str
    task: str
    images: list[str]
    pixels: str
    question: str
    target: str
    frame: str
    dialect: str
    completion: str
    score: float = Field(ge=0, le=1)
    status: str


@dataclass(frozen=True)
class ComparedExample:
    """Two predictions for the same question."""

    first: PredictionRecord
    other: PredictionRecord

    @property
    def change(self) -> float:
        """Score difference, ``other - first``."""
        return self.other.score - self.first.score


@dataclass(frozen=True)
class BenchmarkComparison(PairedRow):
    """Scores of two evaluations of one benchmark, paired by record.

    ``only_first`` and ``only_other`` count the records without a counterpart. ``higher`` and ``lower`` are the examples
    with the largest score differences in each direction, largest first.
    """

    percent = True
    benchmark: str
    title: str
    task: str
    first: str
    other: str
    test: PairedTest
    only_first: int
    only_other: int
    higher: list[ComparedExample]
    lower: list[ComparedExample]
    p_holm: float = math.nan

    @property
    def labels(self) -> tuple[str, ...]:
        """The benchmark."""
        return (self.benchmark,)


@dataclass(frozen=True)
class PaperRow:
    """A published metric in [0, 1] over all records of each source, and the number of these records, by letter."""

    benchmark: str
    metric: str
    values: dict[str, float]
    records: dict[str, int]


def benchmark_rows(
    sources: Sequence[ComparedRun], draws: int, on_progress: OnProgress
) -> tuple[list[BenchmarkComparison], list[str]]:
    """Rows of the benchmarks that at least two sources have, against the first of these, and notes on what is left out.

    Raises DataError if predictions cannot be read.
    """
    names, notes = _benchmarks(sources), [f"{s} has no evaluation." for s in sources if not s.evaluation]
    comparisons: list[BenchmarkComparison] = []
    for done, name in enumerate(names):
        on_progress(done, f"of {len(names)} benchmarks compared")
        first, *others = _evaluated_on(sources, name)
        if not others:
            notes.append(f"Only {first} was evaluated on {name}.")
            continue
        predictions = _predictions_by_key(first, name)
        for other in others:
            comparison = _compare_pair(name, first, predictions, other, draws)
            if comparison is None:
                notes.append(f"{name}: {first} and {other} have no record in common.")
            else:
                comparisons.append(comparison)
    corrected = holm([comparison.test.p for comparison in comparisons])
    return [replace(comparison, p_holm=p) for comparison, p in zip(comparisons, corrected, strict=True)], notes


def paper_rows(sources: Sequence[ComparedRun]) -> list[PaperRow]:
    """Published metrics of the benchmarks that at least two sources have."""
    rows = []
    for name in _benchmarks(sources):
        evaluated = _evaluated_on(sources, name)
        if len(evaluated) > 1:
            results = {s.letter: s.evaluation.benchmarks[name] for s in evaluated if s.evaluation}
            metrics = {letter: result.paper for letter, result in results.items()}
            records = {letter: result.n for letter, result in results.items()}
            for metric in dict.fromkeys(m for paper in metrics.values() for m in paper):
                values = {letter: paper[metric] for letter, paper in metrics.items() if metric in paper}
                rows.append(PaperRow(name, metric, {k: v for k, v in values.items() if math.isfinite(v)}, records))
    return rows


def _benchmarks(sources: Sequence[ComparedRun]) -> list[str]:
    return list(dict.fromkeys(name for s in sources if s.evaluation for name in s.evaluation.benchmarks))


def _evaluated_on(sources: Sequence[ComparedRun], name: str) -> list[ComparedRun]:
    return [s for s in sources if s.evaluation and name in s.evaluation.benchmarks]


def _predictions_by_key(source: ComparedRun, name: str) -> dict[RecordKey, PredictionRecord]:
    """Predictions by example id, task, question and occurrence index, which separates repeated questions."""
    assert source.evaluation is not None
    predictions = Predictions(source.evaluation.folder / "predictions", name)
    records = validated(TypeAdapter(list[PredictionRecord]), predictions.rows(), predictions.file)
    occurrences: Counter[tuple[str, str, str]] = Counter()
    by_key: dict[RecordKey, PredictionRecord] = {}
    for record in records:
        key = (record.example_id, record.task, record.question)
        by_key[(*key, occurrences[key])] = record
        occurrences[key] += 1
    return by_key


def _compare_pair(
    name: str, first: ComparedRun, first_records: dict[RecordKey, PredictionRecord], other: ComparedRun, draws: int
) -> BenchmarkComparison | None:
    """Pair two evaluations of a benchmark by record; None if they share no record."""
    assert other.evaluation is not None
    other_records = _predictions_by_key(other, name)
    common = [key for key in first_records if key in other_records]
    if not common:
        return None
    examples = [ComparedExample(first_records[key], other_records[key]) for key in common]
    scores = np.array([(e.first.score, e.other.score) for e in examples])
    result = other.evaluation.benchmarks[name]
    return BenchmarkComparison(
        benchmark=name,
        title=result.title,
        task=result.task,
        first=first.letter,
        other=other.letter,
        test=paired_bootstrap(scores[:, 0], scores[:, 1], draws),
        only_first=len(first_records) - len(examples),
        only_other=len(other_records) - len(examples),
        higher=[e for e in sorted(examples, key=lambda e: -e.change)[:MAX_EXAMPLES] if e.change > 0],
        lower=[e for e in sorted(examples, key=lambda e: e.change)[:MAX_EXAMPLES] if e.change < 0],
    )
