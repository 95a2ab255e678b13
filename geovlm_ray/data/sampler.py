"""Which example is drawn when: a pure function of the seed and the number of the draw.

Draws are numbered from 0 without gaps, and the number is the prompt's ``group_id``; the cursor of a run is
therefore a single integer, and a resumed run draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Protocol

import numpy as np

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example, Prompt
from geovlm_ray.data.config import DataConfig
from geovlm_ray.data.frames import in_frame
from geovlm_ray.data.mixture import Schedule, shares
from geovlm_ray.data.parquet import RecordTable
from geovlm_ray.data.scenes import SCENE_TASKS, scene_example

HELD_OUT_SEED = 1_000_000_007
REPLACEMENTS = 2**40
"""Draws from this number on replace others; no run draws as many prompts."""


def step_of(group_id: int, batch_size: int) -> int:
    """The step, counted from 0, for which a draw was made, or the one that it replaces."""
    return group_id % REPLACEMENTS // batch_size


class Stream(Protocol):
    """Examples by task and number; number k of a task is the same in every process and every run."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of which there are examples."""

    def count(self, task: str) -> int | None:
        """Number of different examples of a task; None for no end."""

    def of_task(self, task: str, k: int) -> Example:
        """The k-th draw of a task."""

    def held_out(self, tasks: Sequence[str], n: int) -> list[Example]:
        """About ``n`` examples in equal parts of the tasks, none of which is ever drawn, or all that there are."""


class SceneStream:
    """Drawn scenes without end."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.tasks = SCENE_TASKS

    def count(self, task: str) -> int | None:
        """There is no end."""
        return None

    def of_task(self, task: str, k: int) -> Example:
        """Scene k of a task."""
        return scene_example(task, self.seed, k)

    def held_out(self, tasks: Sequence[str], n: int) -> list[Example]:
        """At least ``n`` scenes from a seed that no training uses."""
        each = -(-n // len(tasks))
        return [scene_example(task, HELD_OUT_SEED, k, split="heldout") for task in tasks for k in range(each)]


class RecordStream:
    """Records of a dataset in the frame of the answers, each task's shuffled anew in every epoch."""

    def __init__(self, table: RecordTable, config: DataConfig, name: str) -> None:
        self.table = table
        self.config = config
        self.name = name
        splits, tasks = table.places("split"), table.places("task")
        trained = [splits[s] for s in config.splits if s in splits]
        if not trained:
            wanted, found = " or ".join(map(repr, config.splits)), ", ".join(map(repr, splits)) or "none"
            raise DataError(f"{name}: expected at least one record of the split {wanted}, found splits: {found}")
        drawn = np.concatenate(trained)
        self._train = _parts(tasks, drawn)
        self._rest = _parts(tasks, np.setdiff1d(np.arange(len(table)), drawn))
        self._order = lru_cache(maxsize=64)(self._permutation)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of which there are records, in the order of the dataset."""
        return tuple(self._train)

    def count(self, task: str) -> int:
        """Number of a task's records.

        Raises:
            DataError: there is none.
        """
        if task not in self._train:
            raise DataError(f"{self.name}: expected records of task {task!r}, found only {', '.join(self.tasks)}")
        return len(self._train[task])

    def record(self, task: str, i: int) -> Example:
        """Record i of a task, in the order of the dataset."""
        return self._example(int(self._train[task][i]))

    def of_task(self, task: str, k: int) -> Example:
        """Draw k of a task's records."""
        epoch, within = divmod(k, len(self._train[task]))
        return self.record(task, int(self._order(task, epoch)[within]))

    def held_out(self, tasks: Sequence[str], n: int) -> list[Example]:
        """Records of the other splits, the same ones each time."""
        each = -(-n // len(tasks))
        found = []
        for task in tasks:
            places = self._rest.get(task, np.empty(0, dtype=int))
            chosen = np.random.default_rng([self.config.seed, *task.encode()]).permutation(len(places))[:each]
            found += [self._example(int(places[i])) for i in np.sort(chosen)]
        return found

    def __len__(self) -> int:
        return sum(map(len, self._train.values()))

    def _example(self, i: int) -> Example:
        example, frame = self.table.row(i).example, self.config.answer_frame
        return example if frame is None else in_frame(example, frame)

    def _permutation(self, task: str, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.config.seed, epoch, *task.encode()]).permutation(len(self._train[task]))


class PromptSampler:
    """Draws prompts, ``batch_size`` a step, through the stages of a data section."""

    def __init__(self, stream: Stream, config: DataConfig, batch_size: int) -> None:
        self.stream = stream
        self.batch_size = batch_size
        stages = [(stage.tasks, stage.steps * batch_size) for stage in config.stages] or [(stream.tasks, 0)]
        self._stages: list[tuple[int, tuple[str, ...], Schedule]] = []
        start = 0
        for tasks, draws in stages:
            weights = shares([stream.count(task) for task in tasks], config.mixture, config.temperature)
            self._stages.append((start, tasks, Schedule(weights)))
            start += draws

    def batch(self, step: int, shard: tuple[int, int] = (0, 1)) -> list[Prompt]:
        """The prompts of a step (counted from 0), or the i-th of n parts of them for ``shard`` (i, n)."""
        first = step * self.batch_size
        return [self.prompt(k) for k in range(first + shard[0], first + self.batch_size, shard[1])]

    def prompt(self, k: int) -> Prompt:
        """The prompt of draw k."""
        start, tasks, schedule = next(stage for stage in reversed(self._stages) if stage[0] <= k)
        task, before = schedule[k - start]
        return Prompt(k, self.stream.of_task(tasks[task], before))

    def replacement(self, prompt: Prompt, attempt: int) -> Prompt:
        """Another prompt of the same task, for the ``attempt``-th time (from 1) that a draw is replaced."""
        k = attempt * REPLACEMENTS + prompt.group_id % REPLACEMENTS
        return replace(prompt, group_id=k, example=self.stream.of_task(prompt.example.task, k))


def _parts(tasks: dict[str, np.ndarray], places: np.ndarray) -> dict[str, np.ndarray]:
    """Those of each task's places that are among ``places``, tasks without any left out."""
    parts = {task: np.intersect1d(theirs, places, assume_unique=True) for task, theirs in tasks.items()}
    return {task: theirs for task, theirs in parts.items() if len(theirs)}
