"""Comparison of runs and evaluations in everything that at least two of them have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from geovlm_ray.config import flat
from geovlm_ray.core.errors import RunError
from geovlm_ray.evaluation.comparison.benchmarks import (
    BenchmarkComparison,
    ComparedExample,
    OnProgress,
    PaperRow,
    benchmark_rows,
    paper_rows,
)
from geovlm_ray.evaluation.comparison.held_out import HeldOutRow, held_out_rows
from geovlm_ray.evaluation.comparison.paired import SEED
from geovlm_ray.evaluation.comparison.sources import EVALUATION, RUN, ComparedRun
from geovlm_ray.tasks import TASKS

CURVES = {
    "reward/mean": ("Sampled reward", "mean reward"),
    "reward/format": ("Format", "mean in [0, 1]"),
    "reward/accuracy": ("Accuracy", "mean in [0, 1]"),
    "completion/length_mean": ("Completion length", "tokens"),
}
"""Training metrics shown as curves, followed by the rewards of each task: title and y-axis label."""
IDENTITY_KEYS = ("run.name", "run.dir")
"""Settings that identify a run but do not affect it."""


@dataclass(frozen=True)
class SettingDifference:
    """A configuration key on which sources of one kind differ, with its values by letter."""

    kind: str
    key: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """A training metric: points (step, value) by letter."""

    metric: str
    title: str
    unit: str
    points: dict[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class Comparison:
    """Results of a comparison; ``draws`` is the number of bootstrap resamples, notes name what is not compared."""

    sources: list[ComparedRun]
    draws: int
    settings: list[SettingDifference]
    curves: list[Curve]
    held_out: list[HeldOutRow]
    held_out_notes: list[str]
    benchmarks: list[BenchmarkComparison]
    benchmark_notes: list[str]
    paper: list[PaperRow]


def compare(sources: Sequence[ComparedRun], draws: int, on_progress: OnProgress) -> Comparison:
    """Compare runs and evaluations with ``draws`` resamples; calls back with the number of compared benchmarks.

    Raises:
        RunError: no two sources have anything in common.
        DataError: predictions cannot be read.
    """
    held_out, held_out_notes = held_out_rows(sources, draws)
    benchmarks, benchmark_notes = benchmark_rows(sources, draws, on_progress)
    curves = _curves(sources)
    if not (held_out or benchmarks or curves):
        raise RunError(
            "expected training steps, held-out rewards or benchmarks that at least two of "
            f"{', '.join(map(str, sources))} share, found none. {' '.join([*held_out_notes, *benchmark_notes])}"
        )
    settings = [s for kind in (RUN, EVALUATION) for s in _settings(kind, sources)]
    found = (held_out, held_out_notes, benchmarks, benchmark_notes, paper_rows(sources))
    return Comparison(list(sources), draws, settings, curves, *found)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """All numbers; examples with the largest score differences have their id, question, scores and completions."""
    return {
        "sources": {
            s.letter: {
                "name": s.name,
                "path": str(s.folder.resolve()),
                "kind": s.kind,
                "evaluation": str(s.evaluation.folder.resolve()) if s.evaluation else None,
            }
            for s in comparison.sources
        },
        "bootstrap": {"draws": comparison.draws, "seed": SEED},
        "settings": [asdict(setting) for setting in comparison.settings],
        "curves": {curve.metric: curve.points for curve in comparison.curves},
        "heldout": [asdict(row) for row in comparison.held_out],
        "heldout_notes": comparison.held_out_notes,
        "benchmarks": [_benchmark_json(row) for row in comparison.benchmarks],
        "benchmark_notes": comparison.benchmark_notes,
        "paper": [asdict(row) for row in comparison.paper],
    }


def _benchmark_json(row: BenchmarkComparison) -> dict[str, Any]:
    return {**asdict(row), **{name: list(map(_example_json, getattr(row, name))) for name in ("higher", "lower")}}


def _example_json(example: ComparedExample) -> dict[str, Any]:
    answers = {name: {"score": p.score, "completion": p.completion} for name, p in vars(example).items()}
    return {"example_id": example.first.example_id, "question": example.first.question, **answers}


def _curves(sources: Sequence[ComparedRun]) -> list[Curve]:
    curves = []
    tasks = {f"task/{task}/reward": (f"Sampled reward: {task}", "mean reward") for task in TASKS}
    for metric, (title, unit) in (CURVES | tasks).items():
        points = {
            s.letter: [(row["step"], row[metric]) for row in s.metrics if math.isfinite(row.get(metric, math.nan))]
            for s in sources
        }
        points = {letter: values for letter, values in points.items() if values}
        if len(points) > 1:
            curves.append(Curve(metric, title, unit, points))
    return curves


def _settings(kind: str, sources: Sequence[ComparedRun]) -> list[SettingDifference]:
    """Configuration keys on which sources of a kind differ; sources without a configuration are ignored."""
    configs = {s.letter: flat(s.config) for s in sources if s.config and s.kind == kind}
    keys = dict.fromkeys(key for config in configs.values() for key in config if key not in IDENTITY_KEYS)
    settings = [SettingDifference(kind, key, {letter: c.get(key) for letter, c in configs.items()}) for key in keys]
    return [s for s in settings if any(value != next(iter(s.values.values())) for value in s.values.values())]
