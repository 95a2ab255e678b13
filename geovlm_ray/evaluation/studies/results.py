"""Results of the runs of a study, all scored by the accuracy of the default rewards."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from geovlm_ray.config import load_stored
from geovlm_ray.core.files import read_object, read_objects
from geovlm_ray.data.sample_rows import read_rows, row_example
from geovlm_ray.evaluation.model import default_reward_config
from geovlm_ray.evaluation.studies.processes import cpu_share, is_complete
from geovlm_ray.evaluation.studies.runs import StudyPlan
from geovlm_ray.evaluation.studies.study import Measure
from geovlm_ray.rewards.local import LocalRewards

FINAL_SHARE = 0.25
"""Share of steps at the end of training whose samples measure the trained policy."""
ALL = "all tasks"
RecordScores = Mapping[str, Mapping[tuple[str, str], float]]
"""Scores of benchmark records by task, then by id and question."""


@dataclass(frozen=True)
class RunResult:
    """Results of one run, with scores in [0, 1].

    ``sampled``: mean score of the samples of each step, [steps], by task and over all tasks. ``before`` and ``greedy``:
    benchmark scores before and after training; ``before`` is empty without reinforcement learning. ``seconds``:
    duration of all steps without evaluations; ``cpu_seconds``: their CPU time, nan if unknown. ``format`` and
    ``length``: mean format reward and mean completion length in tokens over the last steps.
    """

    sampled: Mapping[str, np.ndarray]
    before: RecordScores
    greedy: RecordScores
    seconds: float
    cpu_seconds: float
    format: float
    length: float

    def value(self, measure: Measure, task: str) -> float:
        """The mean over the last steps (``sampled``) or the score after training (``greedy``)."""
        if measure == "greedy":
            return mean_score(self.greedy, task)
        steps = self.sampled.get(task, np.array([np.nan]))
        return float(np.mean(steps[-max(1, round(FINAL_SHARE * len(steps))) :]))


@dataclass(frozen=True)
class Difference:
    """Mean difference between two variants in percentage points, with its 95% Student's t interval.

    ``seeds`` are those that both have; without any, all values are nan. The interval is nan with one seed.
    """

    seeds: tuple[int, ...]
    mean: float
    low: float
    high: float


def read_runs(plan: StudyPlan) -> dict[str, dict[int, RunResult]]:
    """Results of the runs that are complete with the plan's configuration, by variant and seed."""
    results: dict[str, dict[int, RunResult]] = {name: {} for name in plan.study.variants}
    for name, seed in plan.runs:
        command = plan.run_command(name, seed)
        if is_complete(command, plan.logs):
            trained = plan.study.variants[name].train
            timed = command if trained else plan.sft_command(name, seed)
            share = math.nan if plan.cluster else cpu_share(plan.logs, timed.name)
            folder = command.result.parent
            results[name][seed] = (
                read_run(folder, share) if trained else _read_sft(timed.result, folder / "predictions", share)
            )
    return results


def read_run(folder: Path, share: float) -> RunResult:
    """Read the results of a finished run; ``share`` is the CPU time per second of its process."""
    rows = read_objects(folder / "metrics.jsonl")
    rewards = LocalRewards(default_reward_config(load_stored(folder / "config.yaml", sections=["reward"]).reward))
    steps = [_step_scores(file, rewards) for file in sorted((folder / "rollouts").glob("step-*.parquet"))]
    tasks = dict.fromkeys(task for step in steps for task in step)
    evaluations = sorted((folder / "evaluations").glob("step-*/predictions"))
    last = rows[-max(1, round(FINAL_SHARE * len(rows))) :]
    # With --local, the step before an evaluation waits for its answers, which is "other" time.
    seconds = sum(row["seconds/step"] - row["seconds/other"] for row in rows)
    return RunResult(
        sampled={task: np.array([step.get(task, np.nan) for step in steps]) for task in tasks},
        before=_record_scores(evaluations[0]),
        greedy=_record_scores(evaluations[-1]),
        seconds=seconds,
        cpu_seconds=seconds * share,
        format=float(np.mean([row["reward/format"] for row in last])),
        length=float(np.mean([row["completion/length_mean"] for row in last])),
    )


def mean_score(scores: RecordScores, task: str) -> float:
    """Mean score of the records of a task, or mean over all tasks; nan without any."""
    means = [float(np.mean(list(records.values()))) for name, records in scores.items() if task in (ALL, name)]
    return float(np.mean(means)) if means else math.nan


def mean_and_error(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean over seeds and its standard error, which is nan with one seed."""
    return float(np.mean(values)), float(stats.sem(values)) if len(values) > 1 else math.nan


def difference(one: Mapping[int, RunResult], other: Mapping[int, RunResult], measure: Measure, task: str) -> Difference:
    """Mean of ``one`` minus ``other`` over the seeds that both have, on the benchmark records that both answered."""
    by_seed = {seed: _paired(one[seed], other[seed], measure, task) for seed in sorted(one.keys() & other.keys())}
    by_seed = {seed: value for seed, value in by_seed.items() if not math.isnan(value)}
    if not by_seed:
        return Difference((), math.nan, math.nan, math.nan)
    mean, error = mean_and_error([100 * value for value in by_seed.values()])
    margin = error * float(stats.t.ppf(0.975, len(by_seed) - 1)) if len(by_seed) > 1 else math.nan
    return Difference(tuple(by_seed), mean, mean - margin, mean + margin)


def _paired(one: RunResult, other: RunResult, measure: Measure, task: str) -> float:
    """Difference of two runs; nan without a value or record that both have."""
    if measure == "sampled":
        return one.value(measure, task) - other.value(measure, task)
    differences = {
        name: {record: score - other.greedy[name][record] for record, score in records.items() if record in found}
        for name, records in one.greedy.items()
        if (found := other.greedy.get(name, {}).keys() & records.keys())
    }
    return mean_score(differences, task)


def _step_scores(file: Path, rewards: LocalRewards) -> dict[str, float]:
    rows = read_rows(file)
    examples = list(map(row_example, rows))
    by_task: defaultdict[str, list[float]] = defaultdict(list)
    for example, score in zip(examples, rewards.score_batch([r["completion"] for r in rows], examples), strict=True):
        by_task[example.task].append(score.accuracy)
        by_task[ALL].append(score.accuracy)
    return {task: float(np.mean(values)) for task, values in by_task.items()}


def _record_scores(predictions: Path) -> RecordScores:
    scores: defaultdict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    for file in sorted(predictions.glob("*.parquet")):
        for row in read_rows(file, ["task", "example_id", "question", "score"]):
            scores[row["task"]][row["example_id"], row["question"]] = float(row["score"])
    return dict(scores)


def _read_sft(summary: Path, predictions: Path, share: float) -> RunResult:
    """Result of a variant with fine-tuning only."""
    seconds = read_object(summary)["seconds"]
    return RunResult({}, {}, _record_scores(predictions), seconds, seconds * share, math.nan, math.nan)
