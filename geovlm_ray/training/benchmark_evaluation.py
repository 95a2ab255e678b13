"""Benchmarks during a run: engines draw them between two batches, a thread measures them while the learner trains."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from geovlm_ray.config import Config
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import UNDONE, move_aside
from geovlm_ray.core.interfaces import RolloutPool
from geovlm_ray.core.schema import Prompt, SampleGroup
from geovlm_ray.evaluation.cases import Cases
from geovlm_ray.evaluation.model import Evaluated, find_cases, yardstick
from geovlm_ray.evaluation.own import check_paths, own_benchmarks
from geovlm_ray.evaluation.predictions import Predictions, prediction_row
from geovlm_ray.evaluation.registry import Benchmark, find, is_path
from geovlm_ray.evaluation.results import RESULTS, Results, read_results, result_of, write_results
from geovlm_ray.rewards.local import LocalRewards
from geovlm_ray.training.checkpoint import CheckpointFolder

log = logging.getLogger(__name__)

OVERALL = "overall"
"""Name of the mean over benchmarks."""


class InLoopEvaluation:
    """Evaluates the weights of some steps on the same few records of each benchmark.

    What is found stands in ``evaluations/step-NNNNNN`` of the run, and the best checkpoints are kept.
    """

    def __init__(
        self, config: Config, there: Sequence[tuple[Benchmark, Cases]], rollouts: RolloutPool, kept: CheckpointFolder
    ) -> None:
        self.config = config
        self.there = there
        self.rollouts = rollouts
        self.kept = kept
        self.folder = config.run.folder / "evaluations"
        self._rewards = LocalRewards(yardstick(config.reward))
        self._thread = ThreadPoolExecutor(1)
        self._measuring: list[tuple[int, Future[dict[str, float]]]] = []

    def due(self, step: int) -> bool:
        """Whether the weights after a step are to be evaluated, and were not."""
        return step % self.config.evaluation.every == 0 and not (self._of(step) / RESULTS).is_file()

    def begin(self, step: int) -> None:
        """Start to draw with the weights that the engines now hold, which are those after a step."""
        self.kept.hold(step)
        prompts = [Prompt(i, case.example) for i, case in enumerate(c for _, cases in self.there for c in cases)]
        drawing = self.rollouts.submit(prompts, group_size=1, greedy=True)
        self._measuring.append((step, self._thread.submit(self._measure, step, drawing)))

    def results(self) -> dict[str, float]:
        """Metrics ``evaluation/NAME`` of what was measured since this was last asked, and the step it was of."""
        found: dict[str, float] = {}
        while self._measuring and self._measuring[0][1].done():
            found = self._judged()
        return found

    def finish(self) -> None:
        """Wait for what is being measured."""
        while self._measuring:
            self._judged()

    def _judged(self) -> dict[str, float]:
        step, measured = self._measuring.pop(0)
        scores = measured.result()
        if step:
            self.kept.judge(step, scores)
        return {f"evaluation/{name}": score for name, score in scores.items()} | {"evaluation/step": float(step)}

    def _measure(self, step: int, drawing: Iterable[Sequence[SampleGroup]]) -> dict[str, float]:
        """Score and write down what is drawn; the mean score of each benchmark, and of all."""
        groups = self._rewards.score_stream(drawing)
        folder, results, first = self._of(step), Results(f"{self.config.run.name}, step {step}"), 0
        for benchmark, cases in self.there:
            mine = groups[first : first + len(cases)]
            first += len(cases)
            predictions = Predictions(folder / "predictions", benchmark.name)
            predictions.add([prediction_row(i, cases[i], group.samples[0]) for i, group in enumerate(mine)])
            predictions.finish()
            results.benchmarks[benchmark.name] = result_of(benchmark, predictions.rows(), self._rewards)
        write_results(results, folder)
        return _scores(dataclasses.asdict(results))

    def _of(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"


def _scores(results: Mapping[str, Any]) -> dict[str, float]:
    """The mean score of each benchmark, and of all."""
    scores = {name: float(result["score"]["value"]) for name, result in results["benchmarks"].items()}
    return scores | {OVERALL: float(np.mean(list(scores.values())))}


def _rewind(folder: Path, kept: CheckpointFolder, start: int) -> None:
    """Move evaluations of steps that are made again aside, and judge the others again."""
    judged = {}
    for path in folder.glob("step-*"):
        step = int(path.name.removeprefix("step-"))
        if step > start or not (path / RESULTS).is_file():
            move_aside(path, folder / UNDONE)
        elif step:
            judged[step] = _scores(read_results(path))
    kept.rejudge(judged)


def check_benchmarks(config: Config) -> None:
    """What can be known of the benchmarks of a run before it starts.

    Raises:
        ConfigError: one is unknown.
        DataError: the data of one is absent.
    """
    check_paths([Path(name) for name in config.evaluation.benchmarks if is_path(name)])
    for benchmark in find([name for name in config.evaluation.benchmarks if not is_path(name)]):
        data = Path(config.evaluation.data) if config.evaluation.data else None
        if benchmark.reader and not (data and (data / benchmark.name).exists()):
            raise DataError(f"evaluation.benchmarks: {benchmark.name}: {benchmark.where(data)}")


def in_loop_evaluation(
    config: Config, rollouts: RolloutPool, kept: CheckpointFolder, start: int
) -> InLoopEvaluation | None:
    """The evaluation that a run asks for, if any, as the run goes on after step ``start``.

    Raises:
        ConfigError: a benchmark is unknown.
        DataError: the data of one is absent.
    """
    settings = config.evaluation
    if not settings.every:
        return None
    data, folder = Path(settings.data) if settings.data else None, config.run.folder / "evaluations"
    benchmarks = find([name for name in settings.benchmarks if not is_path(name)])
    benchmarks += own_benchmarks([Path(name) for name in settings.benchmarks if is_path(name)], folder, _silent)
    what = Evaluated(config.run.name, benchmarks, data, settings.records)
    found = find_cases(what, config, folder, _silent)
    for name, why in found.absent.items():
        raise DataError(f"evaluation.benchmarks: {name}: {why}")
    for name, what_lacks in found.left_out.items():
        log.warning("evaluation.benchmarks: %s: %s", name, what_lacks)
    _rewind(folder, kept, start)
    return InLoopEvaluation(config, found.there, rollouts, kept)


def _silent(done: int, text: str) -> None:
    """The run's own display goes on."""
