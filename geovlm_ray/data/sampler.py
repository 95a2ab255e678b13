"""Which example is drawn when: a pure function of the seed and the number of the draw.

Draws are numbered from 0 without gaps, and the number is the prompt's ``group_id``; the cursor of a run is
therefore a single integer, and a resumed run draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np

from geovlm_ray.data.config import DataConfig
from geovlm_ray.data.scenes import SCENE_TASKS, scene_example
from geovlm_ray.errors import DataError
from geovlm_ray.schema import Example, Prompt

HELD_OUT_SEED = 1_000_000_007


class Stream(Protocol):
    """Examples by task and number; number k of a task is the same in every process and every run."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of which there are examples."""

    def of_task(self, task: str, k: int) -> Example:
        """The k-th draw of a task."""

    def any(self, k: int) -> Example:
        """The k-th draw of all tasks in their natural proportion."""


class SceneStream:
    """Drawn scenes without end."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.tasks = SCENE_TASKS

    def of_task(self, task: str, k: int) -> Example:
        """Scene k of a task."""
        return scene_example(task, self.seed, k)

    def any(self, k: int) -> Example:
        """Scenes of all tasks in turn."""
        return self.of_task(self.tasks[k % len(self.tasks)], k // len(self.tasks))


class RecordStream:
    """Records of a dataset, shuffled anew in every epoch."""

    def __init__(self, records: Sequence[Example], seed: int, name: str) -> None:
        if not records:
            raise DataError(f"{name}: expected at least one record with a reference, found none")
        self.seed = seed
        self.name = name
        self._all = tuple(records)
        self._by_task = {t: tuple(r for r in records if r.task == t) for t in dict.fromkeys(r.task for r in records)}
        self._order = lru_cache(maxsize=64)(self._permutation)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of which there are records, in the order of the file."""
        return tuple(self._by_task)

    def records(self, task: str) -> tuple[Example, ...]:
        """All records of a task, in the order of the file."""
        return self._by_task[task]

    def require(self, task: str) -> None:
        """Raise DataError if there is no record of a task."""
        if task not in self._by_task:
            raise DataError(f"{self.name}: expected records of task {task!r}, found only {', '.join(self.tasks)}")

    def of_task(self, task: str, k: int) -> Example:
        """Draw k of a task's records."""
        return self._draw(task, self._by_task[task], k)

    def any(self, k: int) -> Example:
        """Draw k of all records."""
        return self._draw("", self._all, k)

    def __len__(self) -> int:
        return len(self._all)

    def _draw(self, key: str, records: Sequence[Example], k: int) -> Example:
        return records[self._order(key, len(records), k // len(records))[k % len(records)]]

    def _permutation(self, key: str, n: int, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch, *key.encode()]).permutation(n)


class Sampler:
    """Draws prompts, ``batch_size`` a step, through the stages of a data section."""

    def __init__(self, stream: Stream, config: DataConfig, batch_size: int) -> None:
        self.stream = stream
        self.config = config
        self.batch_size = batch_size

    def batch(self, step: int) -> list[Prompt]:
        """The prompts of a step (counted from 0)."""
        first = step * self.batch_size
        return [Prompt(i, self._example(i)) for i in range(first, first + self.batch_size)]

    def _example(self, draw: int) -> Example:
        tasks, start = self._stage(draw)
        if self.config.mixture == "natural" and not self.config.stages:
            return self.stream.any(draw)
        within = draw - start
        return self.stream.of_task(tasks[within % len(tasks)], within // len(tasks))

    def _stage(self, draw: int) -> tuple[tuple[str, ...], int]:
        """Tasks of the stage that a draw falls in, and the stage's first draw."""
        if not self.config.stages:
            return self.stream.tasks, 0
        start = 0
        for stage in self.config.stages[:-1]:
            end = start + stage.steps * self.batch_size
            if draw < end:
                return stage.tasks, start
            start = end
        return self.config.stages[-1].tasks, start


def held_out_scenes(tasks: Sequence[str], n: int) -> list[Prompt]:
    """At least ``n`` scenes in equal parts of the tasks, from a seed that no training uses."""
    each = -(-n // len(tasks))
    examples = [scene_example(task, HELD_OUT_SEED, k, split="heldout") for task in tasks for k in range(each)]
    return [Prompt(i, example) for i, example in enumerate(examples)]
