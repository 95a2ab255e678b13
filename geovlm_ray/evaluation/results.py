"""Results of each benchmark: mean score, both metric sets, slices and reasoning metrics."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geovlm_ray.core.files import read_object, write_atomically
from geovlm_ray.evaluation.metrics.bootstrap import Interval, intervals, mean_interval
from geovlm_ray.evaluation.metrics.calibration import expected_calibration_error, reliability
from geovlm_ray.evaluation.metrics.paper import paper_metrics
from geovlm_ray.evaluation.metrics.sound import needs_embedder, sound_metrics
from geovlm_ray.evaluation.predictions import PredictionRow, answered_example
from geovlm_ray.evaluation.reasoning import consistency_metrics, variant_metrics
from geovlm_ray.evaluation.registry import Benchmark
from geovlm_ray.evaluation.slices import score_slices
from geovlm_ray.rewards.local import LocalRewards

RESULTS = "results.json"


@dataclass(frozen=True)
class Result:
    """Results of one benchmark.

    ``published`` is {metric: {model: percent}}, ``slices`` the score as {dimension: {slice: {"n", "value", "low",
    "high"}}}, ``reasoning`` {metric: {"n", "value", "low", "high"}}, and ``reliability`` a row for each bin of
    confidence.
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
    reliability: list[dict[str, float]] = field(default_factory=list)


@dataclass
class Results:
    """Results of one model by benchmark; ``absent`` and ``left_out`` as in `LoadedBenchmarks`.

    ``changes`` are those of model and data that were accepted when the evaluation was resumed.
    """

    model: str
    benchmarks: dict[str, Result] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)


def result_of(
    benchmark: Benchmark,
    rows: Sequence[PredictionRow],
    rewards: LocalRewards,
    variants: Mapping[str, Sequence[PredictionRow]] | None = None,
) -> Result:
    """Compute the metrics of a benchmark from its predictions, at least one.

    The think mode of ``rewards``, which scored them, determines how responses are parsed. ``variants`` are predictions
    with modified reasoning, by key of `geovlm_ray.evaluation.reasoning.VARIANTS`.
    """
    records = [answered_example(row, rewards.config.think) for row in rows]
    embedder = rewards.embedder if needs_embedder(benchmark.task) else None
    scores = [row["score"] for row in rows]
    confidences = [r.confidence for r in records if r.confidence is not None]
    is_known = len(confidences) == len(records)
    calibration = intervals(expected_calibration_error(confidences, scores), len(scores)) if is_known else {}
    return Result(
        title=benchmark.title,
        task=benchmark.task,
        n=len(rows),
        paper=paper_metrics(records),
        sound={
            "format": mean_interval([r.well_formed for r in records]),
            **sound_metrics(records, embedder),
            **calibration,
        },
        score=mean_interval(scores),
        slices=score_slices(records, scores),
        published=benchmark.published,
        reasoning=consistency_metrics(rows)
        | {k: v for name, other in (variants or {}).items() for k, v in variant_metrics(rows, other, name).items()},
        reliability=reliability(confidences, scores) if is_known else [],
    )


def write_results(results: Results, folder: Path) -> None:
    """Write ``results.json``."""
    write_atomically(folder / RESULTS, json.dumps(dataclasses.asdict(results), indent=2) + "\n")


def read_results(folder: Path) -> dict[str, Any]:
    """Read ``results.json``."""
    return read_object(folder / RESULTS)
