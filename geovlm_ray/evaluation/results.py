"""What predictions are worth: both metric sets, the mean score, and slices, by benchmark."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geovlm_ray.core.files import read_object, write_atomically
from geovlm_ray.evaluation.metrics.bootstrap import Interval, intervals, means
from geovlm_ray.evaluation.metrics.paper import paper_metrics
from geovlm_ray.evaluation.metrics.sound import needs_embedder, sound_metrics
from geovlm_ray.evaluation.predictions import PredictionRow, answered
from geovlm_ray.evaluation.reasoning import effect, named
from geovlm_ray.evaluation.registry import Benchmark
from geovlm_ray.evaluation.slices import score_slice, sliced
from geovlm_ray.rewards.local import LocalRewards

RESULTS = "results.json"


@dataclass(frozen=True)
class Result:
    """One benchmark.

    ``published`` is {metric: {model: percent}}, ``slices`` {dimension: {value: {"n", "value", "low", "high"}}} of the
    score, and ``reasoning`` {figure: {"n", "value", "low", "high"}}.
    """

    title: str
    task: str
    n: int
    paper: dict[str, float]
    sound: dict[str, Interval]
    score: Interval
    slices: dict[str, dict[str, dict[str, float]]]
    published: Mapping[str, Mapping[str, float]]
    reasoning: dict[str, dict[str, float]]


@dataclass
class Results:
    """All benchmarks of one model, why those are absent that are, and what datasets lack of their sources."""

    model: str
    benchmarks: dict[str, Result] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def result_of(
    benchmark: Benchmark,
    rows: Sequence[PredictionRow],
    rewards: LocalRewards,
    again: Mapping[str, Sequence[PredictionRow]] | None = None,
) -> Result:
    """The metrics of a benchmark's predictions, of which there is at least one.

    Args:
        rewards: those that scored them; their think mode says how answers are read.
        again: predictions with another reasoning, by `geovlm_ray.evaluation.reasoning.VARIANTS`.
    """
    records = [answered(row, rewards.config.think) for row in rows]
    embedder = rewards.embedder if needs_embedder(benchmark.task) else None
    scores = [row["score"] for row in rows]
    kept = intervals(means({"format": np.array([record.well_formed for record in records])}), len(records))
    slices = sliced([record.example for record in records], scores, [record.group for record in records])
    return Result(
        title=benchmark.title,
        task=benchmark.task,
        n=len(rows),
        paper=paper_metrics(records),
        sound=kept | sound_metrics(records, embedder),
        score=score_slice(np.asarray(scores)).score,
        slices={
            dimension: {name: {"n": part.n, **dataclasses.asdict(part.score)} for name, part in parts.items()}
            for dimension, parts in slices.items()
        },
        published=benchmark.published,
        reasoning=named(rows)
        | {k: v for name, other in (again or {}).items() for k, v in effect(rows, other, name).items()},
    )


def write_results(results: Results, folder: Path) -> None:
    """Write ``results.json``."""
    write_atomically(folder / RESULTS, json.dumps(dataclasses.asdict(results), indent=2) + "\n")


def read_results(folder: Path) -> dict[str, Any]:
    """What `write_results` wrote."""
    return read_object(folder / RESULTS)
