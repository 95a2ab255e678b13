"""Figures of a study: score of the samples per step, and score after training by task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from geovlm_ray.core.files import writing
from geovlm_ray.evaluation.studies.results import ALL, mean_and_error
from geovlm_ray.evaluation.studies.verdicts import Runs

WINDOW = 5
"""Steps of the moving average of the curves."""


def draw_curves(runs: Runs, path: Path) -> None:
    """Draw the mean and range over seeds of the samples' score, for the variants with samples."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, by_seed in runs.items():
        curves = np.array([_smooth(100 * run.sampled[ALL]) for run in by_seed.values() if run.sampled])
        if not len(curves):
            continue
        steps = np.arange(1, curves.shape[1] + 1)
        (line,) = axes.plot(steps, curves.mean(axis=0), linewidth=2, label=name)
        axes.fill_between(steps, curves.min(axis=0), curves.max(axis=0), color=line.get_color(), alpha=0.15)
    axes.set_xlabel("learner step")
    axes.set_ylabel("score of the samples, %")
    _save_figure(figure, path)


def draw_scores(runs: Runs, tasks: Sequence[str], path: Path) -> None:
    """Draw the greedy scores over all tasks and of each: mean, standard error, and a dot per seed."""
    tasks = [ALL, *tasks]
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
    _save_figure(figure, path)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Moving average of the last `WINDOW` steps, [steps]."""
    return np.array([np.nanmean(values[max(0, i - WINDOW + 1) : i + 1]) for i in range(len(values))])


def _save_figure(figure: Figure, path: Path) -> None:
    (axes,) = figure.axes
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    with writing(path):
        figure.savefig(path, dpi=110)
