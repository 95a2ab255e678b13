"""Everything that is compared of some runs and evaluations, as far as at least two of them have it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from geovlm_ray.config import flat
from geovlm_ray.core.errors import RunError
from geovlm_ray.core.schema import TASK_NAMES
from geovlm_ray.evaluation.comparison.benchmarks import (
    BenchmarkRow,
    ComparedExample,
    OnProgress,
    PaperRow,
    benchmark_rows,
    paper_rows,
)
from geovlm_ray.evaluation.comparison.heldout import HeldOutRow, held_out_rows
from geovlm_ray.evaluation.comparison.paired import SEED
from geovlm_ray.evaluation.comparison.sources import EVALUATION, RUN, ComparedRun

CURVES = {
    "reward/mean": ("Sampled reward", "mean reward"),
    "reward/format": ("Format", "mean in [0, 1]"),
    "reward/accuracy": ("Accuracy", "mean in [0, 1]"),
    "completion/length_mean": ("Completion length", "tokens"),
    **{f"task/{task}/reward": (f"Sampled reward: {task}", "mean reward") for task in TASK_NAMES},
}
"""Metrics of training that are drawn: title and unit."""
OWN = ("run.name", "run.dir")
"""Settings that say which run it is, and nothing of how it was made."""


@dataclass(frozen=True)
class Setting:
    """A key of the configuration in which folders of a kind differ, with its value by letter."""

    kind: str
    key: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """A metric of training: points (step, value) by letter."""

    metric: str
    title: str
    unit: str
    points: dict[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class Comparison:
    """What was found; ``draws`` are those of each bootstrap, notes say in sentences what is not compared and why."""

    sources: list[ComparedRun]
    draws: int
    settings: list[Setting]
    curves: list[Curve]
    heldout: list[HeldOutRow]
    heldout_notes: list[str]
    benchmarks: list[BenchmarkRow]
    benchmark_notes: list[str]
    paper: list[PaperRow]


def compare(sources: Sequence[ComparedRun], draws: int, on_progress: OnProgress) -> Comparison:
    """Compare.

    Args:
        draws: resamples of each bootstrap.
        on_progress: is told how many benchmarks are done.

    Raises:
        RunError: no two have anything in common.
        DataError: predictions cannot be read.
    """
    heldout, heldout_notes = held_out_rows(sources, draws)
    benchmarks, benchmark_notes = benchmark_rows(sources, draws, on_progress)
    curves = _curves(sources)
    if not (heldout or benchmarks or curves):
        why = " ".join([*heldout_notes, *benchmark_notes])
        raise RunError(
            f"expected steps of training, held-out rewards or benchmarks that at least two of {_listed(sources)} have, "
            f"found none. {why}"
        )
    return Comparison(
        sources=list(sources),
        draws=draws,
        settings=[s for kind in (RUN, EVALUATION) for s in _settings(kind, sources)],
        curves=curves,
        heldout=heldout,
        heldout_notes=heldout_notes,
        benchmarks=benchmarks,
        benchmark_notes=benchmark_notes,
        paper=paper_rows(sources),
    )


def as_json(found: Comparison) -> dict[str, Any]:
    """All numbers; of the cases that differ most what identifies them and the answers."""
    return {
        "sources": {
            s.letter: {
                "name": s.name,
                "path": str(s.folder.resolve()),
                "kind": s.kind,
                "evaluation": str(s.evaluation.folder.resolve()) if s.evaluation else None,
            }
            for s in found.sources
        },
        "bootstrap": {"draws": found.draws, "seed": SEED},
        "settings": [asdict(setting) for setting in found.settings],
        "curves": {curve.metric: curve.points for curve in found.curves},
        "heldout": [{**asdict(row), "test": asdict(row.test)} for row in found.heldout],
        "heldout_notes": found.heldout_notes,
        "benchmarks": [_benchmark_json(row) for row in found.benchmarks],
        "benchmark_notes": found.benchmark_notes,
        "paper": [asdict(row) for row in found.paper],
    }


def _benchmark_json(row: BenchmarkRow) -> dict[str, Any]:
    met = row.met
    values = {k: getattr(met, k) for k in ("benchmark", "title", "task", "first", "other", "only_first", "only_other")}
    cases = {"higher": [_case_json(case) for case in met.higher], "lower": [_case_json(case) for case in met.lower]}
    return {**values, "test": asdict(met.test), "p_holm": row.p_holm, **cases}


def _case_json(case: ComparedExample) -> dict[str, Any]:
    answers = {name: {"score": a.score, "completion": a.completion} for name, a in vars(case).items()}
    return {"example_id": case.first.example_id, "question": case.first.question, **answers}


def _curves(sources: Sequence[ComparedRun]) -> list[Curve]:
    curves = []
    for metric, (title, unit) in CURVES.items():
        points = {s.letter: _points(s.metrics, metric) for s in sources}
        points = {letter: theirs for letter, theirs in points.items() if theirs}
        if len(points) > 1:
            curves.append(Curve(metric, title, unit, points))
    return curves


def _points(rows: Iterable[Mapping[str, float]], metric: str) -> list[tuple[float, float]]:
    return [(row["step"], row[metric]) for row in rows if math.isfinite(row.get(metric, math.nan))]


def _settings(kind: str, sources: Sequence[ComparedRun]) -> list[Setting]:
    """Keys in which the folders of a kind that have a configuration differ."""
    configs = {s.letter: flat(s.config) for s in sources if s.config and s.kind == kind}
    keys = dict.fromkeys(key for config in configs.values() for key in config if key not in OWN)
    settings = [Setting(kind, key, {letter: c.get(key) for letter, c in configs.items()}) for key in keys]
    return [s for s in settings if any(value != next(iter(s.values.values())) for value in s.values.values())]


def _listed(sources: Sequence[ComparedRun]) -> str:
    return ", ".join(map(str, sources))
