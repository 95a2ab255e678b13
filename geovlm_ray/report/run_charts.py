"""Charts of a training run, by subject; charts without at least two finite values are left out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from markupsafe import Markup
from pydantic import BaseModel, TypeAdapter

from geovlm_ray.config import Config
from geovlm_ray.core.files import read_object
from geovlm_ray.core.validation import validated
from geovlm_ray.report.curves import Level, chart, metric_line
from geovlm_ray.report.held_out import max_reward
from geovlm_ray.report.metrics import StepMetrics

MIN_PHASE = 0.01
"""Share of the step time below which a phase is not shown."""


class _Score(BaseModel):
    value: float


class _Benchmark(BaseModel):
    score: _Score


class _Results(BaseModel):
    """The fields of ``results.json`` that the charts use."""

    benchmarks: dict[str, _Benchmark]


def run_charts(
    rows: Sequence[StepMetrics], config: Config, constants: Mapping[str, float], evaluations: Path
) -> dict[str, list[Markup]]:
    """Charts as SVG elements by subject, from the metrics of the steps and the evaluations during training.

    ``constants`` has the held-out reward of each task's best constant answer, drawn as a line.
    """
    subjects = {
        "Reward": [*_rewards(rows, config, constants), *_benchmarks(evaluations)],
        "Completions": _completions(rows, config),
        "Update": _update(rows),
        "Time and numerical agreement": _system(rows),
    }
    drawn = {name: [each for each in charts if each is not None] for name, charts in subjects.items()}
    return {name: charts for name, charts in drawn.items() if charts}


def _metrics(
    rows: Sequence[StepMetrics], names: Mapping[str, str], title: str, ylabel: str, levels: Sequence[Level] = ()
) -> Markup | None:
    """A chart of the metrics with at least two finite values; None if there is no such metric.

    The y axis of charts without levels begins at 0.
    """
    lines = [metric_line(rows, name, legend) for name, legend in names.items()]
    shown = [line for line in lines if len(line.points) > 1]
    return chart(shown, title, ylabel, levels, from_zero=not levels) if shown else None


def _rewards(rows: Sequence[StepMetrics], config: Config, constants: Mapping[str, float]) -> Iterator[Markup | None]:
    maximum = max_reward(config.reward)
    top = Level("maximum", maximum)
    yield _metrics(rows, {"reward/mean": "reward"}, f"Sampled reward, at most {maximum:g}", "mean reward", [top])
    parts = {"reward/format": "format", "reward/accuracy": "accuracy"}
    yield _metrics(rows, parts, "Format and accuracy, at most 1", "mean", [Level("maximum", 1)])
    names = dict.fromkeys(name for row in rows for name in row)
    for name, task in ((name, found[1]) for name in names if (found := re.fullmatch("task/(.*)/reward", name))):
        levels = [top, *([Level("best constant answer", constants[task])] if task in constants else [])]
        yield _metrics(rows, {name: "reward"}, f"{task}: sampled reward", "mean reward", levels)


def _completions(rows: Sequence[StepMetrics], config: Config) -> list[Markup | None]:
    length = f"Completion length, at most {config.rollout.max_tokens} tokens"
    return [
        _metrics(rows, {"completion/length_mean": "length"}, length, "mean tokens"),
        _metrics(rows, {"completion/cut_off": "cut off"}, "Completions cut off at the maximum length", "fraction"),
        _metrics(rows, {"entropy/sampled": "entropy"}, "Entropy of the policy", "nats per token"),
        _metrics(
            rows, {"group/zero_variance": "equal"}, "Groups without reward variance (no gradient)", "fraction of groups"
        ),
    ]


def _update(rows: Sequence[StepMetrics]) -> list[Markup | None]:
    clipped = {"loss/clipped_low": "lower bound", "loss/clipped_high": "upper bound"}
    norms = {"grad_norm": "all", "grad_norm/vision": "vision", "grad_norm/language": "language"}
    kl = {"loss/kl": "KL"} if any(row.get("loss/kl") for row in rows) else {}
    return [
        _metrics(rows, norms, "Gradient norm before clipping", "norm"),
        _metrics(rows, clipped, "Tokens clipped, by side", "fraction of tokens"),
        _metrics(rows, {"loss/kl_to_sampler": "KL"}, "KL to the rollout policy", "nats per token"),
        _metrics(rows, kl, "KL to the reference policy", "nats"),
    ]


def _system(rows: Sequence[StepMetrics]) -> list[Markup | None]:
    steady = [row for row in rows if row["step"] > 1]
    names = dict.fromkeys(name for row in steady for name in row if name.startswith("seconds/"))
    total = sum(row.get("seconds/step", 0.0) for row in steady)
    phases = {
        name: name.removeprefix("seconds/")
        for name in names
        if name != "seconds/step" and sum(row.get(name, 0.0) for row in steady) > MIN_PHASE * total
    }
    parity = "Parity of engine and learner after weight sync"
    return [
        _metrics(steady, phases, "Step time by phase, without step 1 (warm-up)", "seconds"),
        _metrics(rows, {"parity/max_abs": "difference"}, parity, "maximum log-prob difference"),
    ]


def _benchmarks(evaluations: Path) -> list[Markup | None]:
    """A chart of the benchmark evaluations during training."""
    rows = []
    for file in sorted(evaluations.glob("step-*/results.json")):
        step = file.parent.name.removeprefix("step-")
        if step.isdecimal():
            results = validated(TypeAdapter(_Results), read_object(file), file)
            scores = {name: result.score.value for name, result in results.benchmarks.items()}
            rows.append({"step": float(step), **scores})
    names = {name: name for row in rows for name in row if name != "step"}
    return [_metrics(rows, names, "Benchmarks during training", "mean score")]
