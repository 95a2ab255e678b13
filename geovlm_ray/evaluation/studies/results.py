"""Results of the runs of a study, all scored by the accuracy of the default rewards."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from geovlm_ray.config import load_config
from geovlm_ray.core.files import read_object, read_objects
from geovlm_ray.data.sample_rows import read_rows, row_example
from geovlm_ray.evaluation.model import default_reward_config
from geovlm_ray.evaluation.results import RESULTS, read_results
from geovlm_ray.evaluation.studies.runs import StudyPlan
from geovlm_ray.rewards.local import LocalRewards

FINAL_SHARE = 0.25
"""Share of steps at the end of training whose samples measure the trained policy."""
ALL = "all tasks"


@dataclass(frozen=True)
class RunResult:
    """Results of one run.

    ``sampled``: mean score of the samples of each step, [steps], by task and over all tasks. ``greedy``: mean benchmark
    score (before, after) training, by task and over all tasks. ``seconds``: duration of all steps. ``format`` and
    ``length``: mean format reward and mean completion length in tokens over the last steps. Scores are in [0, 1].
    """

    sampled: Mapping[str, np.ndarray]
    greedy: Mapping[str, tuple[float, float]]
    seconds: float
    format: float
    length: float

    def value(self, measure: str, task: str) -> float:
        """The mean over the last steps (``sampled``) or the score after training (``greedy``)."""
        if measure == "greedy":
            return self.greedy[task][1]
        steps = self.sampled.get(task, np.array([np.nan]))
        return float(np.mean(steps[-max(1, round(FINAL_SHARE * len(steps))) :]))


@dataclass(frozen=True)
class Difference:
    """Mean difference between two variants with its 95% Student's t interval, which is nan with one seed."""

    mean: float
    low: float
    high: float


def read_runs(plan: StudyPlan) -> dict[str, dict[int, RunResult]]:
    """Results of the finished runs by variant and seed."""
    results: dict[str, dict[int, RunResult]] = {}
    for name, variant in plan.study.variants.items():
        folder_of, file = (plan.folder, "summary.json") if variant.train else (plan.evaluation, RESULTS)
        folders = {seed: folder_of(name, seed) for seed in plan.study.seeds}
        results[name] = {
            seed: read_run(folder) if variant.train else _sft_result(folder, plan.model(name, seed))
            for seed, folder in folders.items()
            if (folder / file).is_file()
        }
    return results


def read_run(folder: Path) -> RunResult:
    """Read the results of a finished run."""
    rows = read_objects(folder / "metrics.jsonl")
    rewards = LocalRewards(default_reward_config(load_config(str(folder / "config.yaml")).reward))
    steps = [_step_scores(file, rewards) for file in sorted((folder / "rollouts").glob("step-*.parquet"))]
    tasks = dict.fromkeys(task for step in steps for task in step)
    evaluations = sorted((folder / "evaluations").glob("step-*/results.json"))
    before, after = (_greedy(file.parent) for file in (evaluations[0], evaluations[-1]))
    last = rows[-max(1, round(FINAL_SHARE * len(rows))) :]
    return RunResult(
        sampled={task: np.array([step.get(task, np.nan) for step in steps]) for task in tasks},
        greedy={task: (before[task], after[task]) for task in before},
        seconds=sum(row["seconds/step"] for row in rows),
        format=float(np.mean([row["reward/format"] for row in last])),
        length=float(np.mean([row["completion/length_mean"] for row in last])),
    )


def mean_and_error(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean over seeds and its standard error, which is nan with one seed."""
    return float(np.mean(values)), float(stats.sem(values)) if len(values) > 1 else math.nan


def difference(one: Mapping[int, RunResult], other: Mapping[int, RunResult], measure: str, task: str) -> Difference:
    """Mean of ``one`` minus mean of ``other``; paired by seed if both have the same seeds.

    Otherwise the interval uses the variance of only one variant: of ``one`` if it has several seeds.
    """
    a = [run.value(measure, task) for run in one.values()]
    b = [run.value(measure, task) for run in other.values()]
    mean = float(np.mean(a) - np.mean(b))
    values = np.subtract(a, b) if one.keys() == other.keys() else a if len(a) > 1 else b
    margin = float(stats.t.ppf(0.975, len(values) - 1)) * mean_and_error(values)[1]
    return Difference(mean, mean - margin, mean + margin)


def _step_scores(file: Path, rewards: LocalRewards) -> dict[str, float]:
    rows = read_rows(file)
    examples = list(map(row_example, rows))
    by_task: defaultdict[str, list[float]] = defaultdict(list)
    for example, score in zip(examples, rewards.score_batch([r["completion"] for r in rows], examples), strict=True):
        by_task[example.task].append(score.accuracy)
        by_task[ALL].append(score.accuracy)
    return {task: float(np.mean(values)) for task, values in by_task.items()}


def _greedy(folder: Path) -> dict[str, float]:
    scores = {r["task"]: float(r["score"]["value"]) for r in read_results(folder)["benchmarks"].values()}
    return scores | {ALL: float(np.mean(list(scores.values())))}


def _sft_result(folder: Path, model: Path) -> RunResult:
    """Result of a variant with fine-tuning only."""
    greedy = {task: (math.nan, value) for task, value in _greedy(folder).items()}
    return RunResult({}, greedy, read_object(model / "sft_summary.json")["seconds"], math.nan, math.nan)
