"""Benchmarks that evaluations have in common, record by record, and the records on which they differ most."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter

from geovlm_ray.evaluation.comparison.paired import Paired, holm, paired
from geovlm_ray.evaluation.comparison.sources import ComparedRun, checked
from geovlm_ray.evaluation.predictions import Predictions

SHOWN = 4
"""Cases that are drawn of those on which one scores higher, and of those on which the other does."""
Key = tuple[str, str, str, int]
OnProgress = Callable[[int, str], None]


class PredictionRecord(BaseModel):
    """What is taken of a row of predictions."""

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
    """The answers of two to the same question."""

    first: PredictionRecord
    other: PredictionRecord

    @property
    def change(self) -> float:
        """How much higher the other one's answer scores."""
        return self.other.score - self.first.score


@dataclass(frozen=True)
class Met:
    """Two evaluations on a benchmark; those of its records that only one of them has are counted."""

    benchmark: str
    title: str
    task: str
    first: str
    other: str
    test: Paired
    only_first: int
    only_other: int
    higher: list[ComparedExample]
    lower: list[ComparedExample]


@dataclass(frozen=True)
class BenchmarkRow:
    """A row of the table of scores, and its p value corrected for their number."""

    met: Met
    p_holm: float


@dataclass(frozen=True)
class PaperRow:
    """A metric as published, in [0, 1] and by letter, of all records that each has, whose numbers are by letter too."""

    benchmark: str
    metric: str
    values: dict[str, float]
    records: dict[str, int]


def benchmark_rows(
    sources: Sequence[ComparedRun], draws: int, on_progress: OnProgress
) -> tuple[list[BenchmarkRow], list[str]]:
    """Every benchmark that at least two have, the others against the first that has it; and what is not compared.

    Raises:
        DataError: predictions cannot be read.
    """
    names, notes = _benchmarks(sources), [f"{s} has no evaluation." for s in sources if not s.evaluation]
    found: list[Met] = []
    for done, name in enumerate(names):
        on_progress(done, f"of {len(names)} benchmarks compared")
        first, *others = _having(sources, name)
        if not others:
            notes.append(f"Only {first} was evaluated on {name}.")
            continue
        answers = _answers(first, name)
        for other in others:
            met = _meet(name, first, answers, other, draws)
            if met is None:
                notes.append(f"{name}: {first} and {other} have no record in common.")
            else:
                found.append(met)
    corrected = holm([met.test.p for met in found])
    return [BenchmarkRow(met, p) for met, p in zip(found, corrected, strict=True)], notes


def paper_rows(sources: Sequence[ComparedRun]) -> list[PaperRow]:
    """The published metrics of the benchmarks that at least two have."""
    rows = []
    for name in _benchmarks(sources):
        having = _having(sources, name)
        if len(having) > 1:
            found = {s.letter: s.evaluation.benchmarks[name] for s in having if s.evaluation}
            metrics = {letter: result.paper for letter, result in found.items()}
            records = {letter: result.n for letter, result in found.items()}
            for metric in dict.fromkeys(m for paper in metrics.values() for m in paper):
                values = {letter: paper[metric] for letter, paper in metrics.items() if metric in paper}
                rows.append(PaperRow(name, metric, {k: v for k, v in values.items() if math.isfinite(v)}, records))
    return rows


def _benchmarks(sources: Sequence[ComparedRun]) -> list[str]:
    return list(dict.fromkeys(name for s in sources if s.evaluation for name in s.evaluation.benchmarks))


def _having(sources: Sequence[ComparedRun], name: str) -> list[ComparedRun]:
    return [s for s in sources if s.evaluation and name in s.evaluation.benchmarks]


def _answers(source: ComparedRun, name: str) -> dict[Key, PredictionRecord]:
    """Answers by record, question and, where these come several times, by which time it is."""
    assert source.evaluation is not None
    predictions = Predictions(source.evaluation.folder / "predictions", name)
    answers = checked(TypeAdapter(list[PredictionRecord]), predictions.rows(), predictions.file)
    seen: Counter[tuple[str, str, str]] = Counter()
    found: dict[Key, PredictionRecord] = {}
    for answer in answers:
        key = (answer.example_id, answer.task, answer.question)
        found[(*key, seen[key])] = answer
        seen[key] += 1
    return found


def _meet(
    name: str, first: ComparedRun, answers: dict[Key, PredictionRecord], other: ComparedRun, draws: int
) -> Met | None:
    """Two evaluations on a benchmark; None where they have no record in common."""
    assert other.evaluation is not None
    theirs = _answers(other, name)
    cases = [ComparedExample(answer, theirs[key]) for key, answer in answers.items() if key in theirs]
    if not cases:
        return None
    result = other.evaluation.benchmarks[name]
    return Met(
        benchmark=name,
        title=result.title,
        task=result.task,
        first=first.letter,
        other=other.letter,
        test=paired(np.array([c.first.score for c in cases]), np.array([c.other.score for c in cases]), draws),
        only_first=len(answers) - len(cases),
        only_other=len(theirs) - len(cases),
        higher=[case for case in sorted(cases, key=lambda case: -case.change)[:SHOWN] if case.change > 0],
        lower=[case for case in sorted(cases, key=lambda case: case.change)[:SHOWN] if case.change < 0],
    )
