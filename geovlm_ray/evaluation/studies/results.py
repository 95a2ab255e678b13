"""What the runs of a study gave, all judged by one yardstick: the accuracy of the default rewards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy import stats

from geovlm_ray.config import load_config
from geovlm_ray.core.files import read_object, read_objects
from geovlm_ray.core.schema import Example
from geovlm_ray.data.records import frame_from_json, pixels_from_json, target_from_json
from geovlm_ray.evaluation.model import yardstick
from geovlm_ray.evaluation.results import RESULTS, read_results
from geovlm_ray.evaluation.studies.runs import StudyPlan
from geovlm_ray.rewards.local import LocalRewards
from geovlm_ray.rewards.score import needs_embedder, score_batch

LAST = 0.25
"""Share of the steps, the last ones, whose samples say how good a policy has become."""
ALL = "all tasks"


@dataclass(frozen=True)
class RunResult:
    """One run. ``sampled`` is [steps], the mean score of each step's samples, by task and of all; ``greedy`` the mean
    score on the drawn benchmarks before and after, by task and of all."""

    sampled: Mapping[str, np.ndarray]
    greedy: Mapping[str, tuple[float, float]]
    seconds: float
    format: float
    length: float

    def value(self, measure: str, task: str) -> float:
        """``sampled``: the mean of the last steps; ``greedy``: after the training."""
        if measure == "greedy":
            return self.greedy[task][1]
        steps = self.sampled.get(task, np.array([np.nan]))
        return float(np.mean(steps[-max(1, round(LAST * len(steps))) :]))


@dataclass(frozen=True)
class Difference:
    """Mean over seeds of a variant less another, with the 95% interval of Student's t; nan with one seed."""

    mean: float
    low: float
    high: float


def read_runs(plan: StudyPlan) -> dict[str, dict[int, RunResult]]:
    """The finished runs by variant and seed."""
    found: dict[str, dict[int, RunResult]] = {}
    for name, variant in plan.study.variants.items():
        if variant.train:
            folders = {seed: plan.folder(name, seed) for seed in plan.study.seeds}
            done = {seed: folder for seed, folder in folders.items() if (folder / "summary.json").is_file()}
            found[name] = {seed: read_run(folder) for seed, folder in done.items()}
        else:
            there = [s for s in plan.study.seeds if (plan.evaluation(name, s) / RESULTS).is_file()]
            found[name] = {s: _evaluated(plan.evaluation(name, s), plan.model(name, s)) for s in there}
    return found


def read_run(folder: Path) -> RunResult:
    """What a finished run gave."""
    rows = read_objects(folder / "metrics.jsonl")
    rewards = LocalRewards(yardstick(load_config(str(folder / "config.yaml")).reward))
    steps = [_step_scores(file, rewards) for file in sorted((folder / "rollouts").glob("step-*.parquet"))]
    tasks = dict.fromkeys(task for step in steps for task in step)
    evaluations = sorted((folder / "evaluations").glob("step-*/results.json"))
    before, after = (_greedy(file.parent) for file in (evaluations[0], evaluations[-1]))
    last = rows[-max(1, round(LAST * len(rows))) :]
    return RunResult(
        sampled={task: np.array([step.get(task, np.nan) for step in steps]) for task in tasks},
        greedy={task: (before[task], after[task]) for task in before},
        seconds=sum(row["seconds/step"] for row in rows),
        format=float(np.mean([row["reward/format"] for row in last])),
        length=float(np.mean([row["completion/length_mean"] for row in last])),
    )


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and its standard error; nan with one seed."""
    array = np.asarray(values, dtype=float)
    error = float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else float("nan")
    return float(array.mean()), error


def difference(one: Mapping[int, RunResult], other: Mapping[int, RunResult], measure: str, task: str) -> Difference:
    """One variant less another; paired by seed where both have several, else with unpaired seeds (Welch)."""
    a = [run.value(measure, task) for run in one.values()]
    b = [run.value(measure, task) for run in other.values()]
    mean = float(np.mean(a) - np.mean(b))
    if len(a) > 1 and one.keys() == other.keys():
        margin = _margin(np.subtract(a, b))
    elif len(a) > 1 or len(b) > 1:
        margin = _margin(np.asarray(a if len(a) > 1 else b))
    else:
        margin = float("nan")
    return Difference(mean, mean - margin, mean + margin)


def _margin(values: np.ndarray) -> float:
    """Half the 95% interval of a mean of n values, n above 1."""
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def _step_scores(file: Path, rewards: LocalRewards) -> dict[str, float]:
    rows = pq.read_table(file).to_pylist()
    examples = [_example(row) for row in rows]
    needed = any(needs_embedder(example.task, rewards.config) for example in examples)
    embedder = rewards.embedder if needed else None
    scores = score_batch([row["completion"] for row in rows], examples, rewards.config, embedder)
    by_task: dict[str, list[float]] = {}
    for example, score in zip(examples, scores, strict=True):
        by_task.setdefault(example.task, []).append(score.accuracy)
        by_task.setdefault(ALL, []).append(score.accuracy)
    return {task: float(np.mean(values)) for task, values in by_task.items()}


def _example(row: Mapping[str, Any]) -> Example:
    return Example(
        id=row["example_id"],
        task=row["task"],
        images=tuple(row["images"]),
        question=row["question"],
        target=target_from_json(row["task"], json.loads(row["target"])),
        frame=frame_from_json(json.loads(row["frame"])),
        dialect=row["dialect"],
        pixels=pixels_from_json(json.loads(row["pixels"])),
    )


def _greedy(folder: Path) -> dict[str, float]:
    found = {r["task"]: float(r["score"]["value"]) for r in read_results(folder)["benchmarks"].values()}
    return found | {ALL: float(np.mean(list(found.values())))}


def _evaluated(folder: Path, model: Path) -> RunResult:
    """A variant that was fine-tuned alone."""
    nothing = float("nan")
    greedy = {task: (nothing, value) for task, value in _greedy(folder).items()}
    return RunResult({}, greedy, read_object(model / "sft_summary.json")["seconds"], nothing, nothing)
