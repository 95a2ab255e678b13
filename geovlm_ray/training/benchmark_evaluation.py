"""Benchmark evaluation during training: engines generate between two batches, a thread scores alongside the learner."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from geovlm_ray.config import Config
from geovlm_ray.core.errors import UNREADABLE, DataError, RunError, reason_of
from geovlm_ray.core.files import UNDONE, move_aside
from geovlm_ray.core.interfaces import RolloutPool
from geovlm_ray.core.schema import Prompt, SampleGroup
from geovlm_ray.data.answer_format import AnswerFormat
from geovlm_ray.evaluation.custom import check_paths, custom_benchmarks
from geovlm_ray.evaluation.examples import BenchmarkExamples
from geovlm_ray.evaluation.model import EvaluationSpec, default_reward_config, load_benchmarks
from geovlm_ray.evaluation.predictions import Predictions
from geovlm_ray.evaluation.registry import Benchmark, find, is_path
from geovlm_ray.evaluation.results import RESULTS, Results, read_results, result_of, write_results
from geovlm_ray.rewards.local import LocalRewards
from geovlm_ray.training.checkpoint import CheckpointFolder

log = logging.getLogger(__name__)

EVALUATIONS = "evaluations"
"""Folder of a run directory with one folder per evaluated step."""
OVERALL = "overall"
"""Key of the mean over all benchmarks."""


class InLoopEvaluation:
    """Evaluates the weights every ``evaluation.every`` steps on a fixed subset of each benchmark.

    Results go to ``evaluations/step-NNNNNN`` of the run directory; the best checkpoint of each benchmark is kept.
    """

    def __init__(
        self,
        config: Config,
        benchmarks: Sequence[tuple[Benchmark, BenchmarkExamples]],
        rollouts: RolloutPool,
        checkpoints: CheckpointFolder,
    ) -> None:
        self.config = config
        self.benchmarks = benchmarks
        self.rollouts = rollouts
        self.checkpoints = checkpoints
        self.folder = config.run.folder / EVALUATIONS
        self._rewards = LocalRewards(default_reward_config(config.reward))
        self._thread = ThreadPoolExecutor(1)
        self._pending: list[tuple[int, Future[dict[str, float]]]] = []
        self._lock = threading.Lock()
        self._closed = False

    def due(self, step: int) -> bool:
        """Whether the weights after a step are to be evaluated and have not been yet."""
        return step % self.config.evaluation.every == 0 and not (self._step_folder(step) / RESULTS).is_file()

    def begin(self, step: int) -> None:
        """Start greedy generation with the engines' current weights, those after a step."""
        self.checkpoints.protect(step)
        items = (item for _, examples in self.benchmarks for item in examples)
        prompts = [Prompt(i, item.example) for i, item in enumerate(items)]
        rollout = self.rollouts.submit(prompts, group_size=1, greedy=True)
        self._pending.append((step, self._thread.submit(self._score, step, rollout)))

    def results(self) -> dict[str, float]:
        """Metrics ``evaluation/NAME`` and ``evaluation/step`` of the last newly completed evaluation; may be empty."""
        metrics: dict[str, float] = {}
        while self._pending and self._pending[0][1].done():
            metrics = self._collect()
        return metrics

    def finish(self) -> None:
        """Wait for pending evaluations."""
        while self._pending:
            self._collect()

    def close(self) -> None:
        """Abandon running evaluations: from now on they write nothing, and a restarted run may begin them again."""
        with self._lock:
            self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _collect(self) -> dict[str, float]:
        step, evaluation = self._pending.pop(0)
        scores = evaluation.result()
        if step:
            self.checkpoints.record_scores(step, scores)
        return {f"evaluation/{name}": score for name, score in scores.items()} | {"evaluation/step": float(step)}

    def _score(self, step: int, rollout: Iterable[Sequence[SampleGroup]]) -> dict[str, float]:
        """Score the completions and write predictions and results; returns the mean score per benchmark and overall."""
        groups = self._rewards.score_stream(rollout)
        folder, results, first = self._step_folder(step), Results(f"{self.config.run.name}, step {step}"), 0
        for benchmark, examples in self.benchmarks:
            benchmark_groups = groups[first : first + len(examples)]
            first += len(examples)
            with self._writing():
                predictions = Predictions(folder / "predictions", benchmark.name)
                bad = predictions.bad_records(len(examples), self.config.data.max_bad)
                predictions.add_groups(dict(enumerate(benchmark_groups)), examples, bad)
                predictions.finish()
                rows = predictions.rows()
            results.benchmarks[benchmark.name] = result_of(benchmark, rows, self._rewards)
        with self._writing():
            write_results(results, folder)
            return _scores(read_results(folder))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise RunError("the evaluation was abandoned with its run")
            yield

    def _step_folder(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"


def _scores(results: Mapping[str, Any]) -> dict[str, float]:
    """The mean score per benchmark, and over all benchmarks."""
    scores = {name: float(result["score"]["value"]) for name, result in results["benchmarks"].items()}
    return scores | {OVERALL: float(np.mean(list(scores.values())))}


def _scores_in(folder: Path) -> dict[str, float] | None:
    """The scores of an evaluation; None without results, or, with a warning, with unreadable ones."""
    if not (folder / RESULTS).is_file():
        return None
    try:
        return _scores(read_results(folder))
    except UNREADABLE as error:
        log.warning("%s: %s; the step is not among the best ones", folder / RESULTS, reason_of(error))
        return None


def _rewind(folder: Path, checkpoints: CheckpointFolder, start: int) -> None:
    """Move evaluations of steps after ``start`` aside, remove incomplete ones, and restore the scores of the others."""
    scores_by_step = {}
    for path in folder.glob("step-*"):
        step = int(path.name.removeprefix("step-"))
        if not (path / RESULTS).is_file():
            shutil.rmtree(path)
            if step < start:
                log.warning("%s: the evaluation of step %d was interrupted, and its weights are gone", path, step)
            continue
        scores = _scores_in(path) if step <= start else None
        if scores is None:
            move_aside(path, folder / UNDONE)
        elif step:
            scores_by_step[step] = scores
    checkpoints.restore_scores(scores_by_step)


def check_benchmarks(config: Config) -> None:
    """Raise ConfigError for an unknown benchmark of a run, DataError for one whose data is missing."""
    check_paths([Path(name) for name in config.evaluation.benchmarks if is_path(name)])
    for benchmark in find([name for name in config.evaluation.benchmarks if not is_path(name)]):
        data = Path(config.evaluation.data) if config.evaluation.data else None
        if benchmark.reader and not (data and (data / benchmark.name).exists()):
            raise DataError(f"evaluation.benchmarks: {benchmark.name}: {benchmark.missing_data_message(data)}")


def in_loop_evaluation(
    config: Config, answers: AnswerFormat, rollouts: RolloutPool, checkpoints: CheckpointFolder, start: int
) -> InLoopEvaluation | None:
    """The evaluation of a run that continues after step ``start``; None if ``evaluation.every`` is 0.

    Raises ConfigError and DataError as `check_benchmarks`.
    """
    settings = config.evaluation
    if not settings.every:
        return None
    data, folder = Path(settings.data) if settings.data else None, config.run.folder / EVALUATIONS
    benchmarks = find([name for name in settings.benchmarks if not is_path(name)])
    benchmarks += custom_benchmarks([Path(name) for name in settings.benchmarks if is_path(name)], folder, _silent)
    spec = EvaluationSpec(config.run.name, benchmarks, data, settings.records)
    found = load_benchmarks(spec, answers, folder, _silent)
    for name, reason in found.absent.items():
        raise DataError(f"evaluation.benchmarks: {name}: {reason}")
    for name, reason in found.left_out.items():
        log.warning("evaluation.benchmarks: %s: %s", name, reason)
    _rewind(folder, checkpoints, start)
    return InLoopEvaluation(config, found.available, rollouts, checkpoints)


def _silent(done: int, text: str) -> None:
    """Progress callback that prints nothing."""
