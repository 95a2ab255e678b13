"""Prompt sampling as a pure function of the seed and the sample index.

Samples are numbered consecutively from 0, and the index is the prompt's ``group_id``. The data cursor of a run is
therefore one integer, and a resumed run samples the same sequence.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example, Prompt
from geovlm_ray.data.answer_format import DATASET_FORMAT, AnswerFormat
from geovlm_ray.data.bad_records import BadRecord, BadRecords
from geovlm_ray.data.config import DataConfig, Stage
from geovlm_ray.data.mixture import Schedule, task_weights
from geovlm_ray.data.parquet import RecordTable
from geovlm_ray.data.scene_tasks import BUILDERS
from geovlm_ray.data.scenes import SCENE_TASKS, scene_example
from geovlm_ray.data.validation.checks import check_records
from geovlm_ray.data.validation.tally import MAX_NAME_LENGTH
from geovlm_ray.tasks import TASKS

HELD_OUT_SEED = 1_000_000_007
REPLACEMENT_OFFSET = 2**40
"""Sample indices from here on are replacements of other samples; no run samples as many prompts."""
SUBSTITUTES = 2**62
"""In place of an epoch, which is smaller, in the seed of the order of substitutes for a bad record."""


def record_name(values: Mapping[str, Any]) -> str:
    """The id of a record, which may be malformed."""
    return (values["id"] or "")[:MAX_NAME_LENGTH]


def step_of(group_id: int, batch_size: int) -> int:
    """Step (from 0) of a prompt, or of the prompt that it replaces."""
    return group_id % REPLACEMENT_OFFSET // batch_size


class Stream(Protocol):
    """Examples by task and index; example k of a task is the same in every process and run.

    Boxes are written in the format ``answers``, at first as they are in the data. ``bad`` are the records that are set
    aside; others of their task are in their place.
    """

    answers: AnswerFormat
    bad: BadRecords

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that have examples."""

    def count(self, task: str) -> int | None:
        """Number of distinct examples of a task; None if unlimited."""

    def of_task(self, task: str, k: int) -> Example:
        """The k-th sample of a task."""

    def held_out(self, tasks: Sequence[str], n: int) -> list[Example]:
        """About ``n`` examples, equally many per task, that are never sampled; fewer if there are not enough."""

    def set_aside(self, example: Example, reason: str, step: int = 0) -> None:
        """Set the record of an example aside, found at a learner step.

        Raises:
            DataError: Too many are bad, or the example is not of a record.
        """


class SceneStream:
    """Unlimited synthetic scenes."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.answers = DATASET_FORMAT
        self.tasks = SCENE_TASKS
        self.bad = BadRecords("data.source=scenes", 0, 0.0)

    def count(self, task: str) -> int | None:
        """None: scenes are unlimited.

        Raises:
            DataError: The task has no scenes.
        """
        if task not in BUILDERS:
            raise DataError(f"data.source=scenes: expected a task of {', '.join(BUILDERS)}, found {task!r}")
        return None

    def of_task(self, task: str, k: int) -> Example:
        """The k-th scene of a task."""
        return self.answers.of(scene_example(task, self.seed, k))

    def held_out(self, tasks: Sequence[str], n: int) -> list[Example]:
        """At least ``n`` scenes from `HELD_OUT_SEED`, which training cannot use."""
        per_task = -(-n // len(tasks))
        scenes = [scene_example(task, HELD_OUT_SEED, k, split="heldout") for task in tasks for k in range(per_task)]
        return [self.answers.of(scene) for scene in scenes]

    def set_aside(self, example: Example, reason: str, step: int = 0) -> None:
        """Raise DataError: a scene is not a record that others can replace."""
        raise DataError(f"record {example.id!r}: {reason.removeprefix(f'record {example.id!r}: ')}")


class RecordStream:
    """Records of a dataset, shuffled per task and epoch; ``training`` are the indices of the training records."""

    def __init__(self, table: RecordTable, config: DataConfig, name: str) -> None:
        self.table = table
        self.config = config
        self.answers = DATASET_FORMAT
        self.name = name
        self.bad = BadRecords(name, len(table), config.max_bad)
        splits, by_task = table.indices_by("split"), table.indices_by("task")
        tasks = {task: indices for task, indices in by_task.items() if task in TASKS}
        selected = [splits[s] for s in config.splits if s in splits]
        if not selected:
            expected, found = " or ".join(map(repr, config.splits)), ", ".join(map(repr, splits)) or "none"
            raise DataError(f"{name}: expected at least one record of the split {expected}, found splits: {found}")
        self.training = np.concatenate(selected)
        self._train = _restrict(tasks, self.training)
        if not self._train:
            expected, found = ", ".join(TASKS), ", ".join(map(repr, by_task))
            raise DataError(f"{name}: expected training records of a task of {expected}, found tasks: {found}")
        self._held_out = _restrict(tasks, np.setdiff1d(np.arange(len(table)), self.training))
        self._order = lru_cache(maxsize=64)(self._permutation)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that have training records, in dataset order."""
        return tuple(self._train)

    def count(self, task: str) -> int:
        """Number of training records of a task.

        Raises:
            DataError: The task has no records.
        """
        if task not in self._train:
            raise DataError(f"{self.name}: expected records of task {task!r}, found only {', '.join(self.tasks)}")
        return len(self._train[task])

    def training_records(self, task: str) -> np.ndarray:
        """Indices of the training records of a task, in dataset order."""
        return self._train[task]

    def example(self, i: int) -> Example:
        """The example of record i.

        Raises:
            DataError: The record cannot be read, or its image, whose size is needed, cannot.
        """
        return self.answers.of(self.table.row(i).example)

    def of_task(self, task: str, k: int) -> Example:
        """The k-th sample of a task's records.

        The place of a record that is set aside is taken by the first other one in an order that depends on k only, so
        that the sequence does not depend on when a record was found to be bad.

        Raises:
            DataError: Too many records are bad, or all of the task are.
        """
        epoch, position = divmod(k, len(self._train[task]))
        first = self._order(task, epoch)[position : position + 1]
        for i in itertools.chain(first, self._substitutes(task, k)):
            found = self._usable(int(self._train[task][i]))
            if found is not None:
                return found
        raise DataError(f"{self.name}: all {self.count(task):,} records of task {task!r} are set aside")

    def held_out(self, tasks: Sequence[str], n: int) -> list[Example]:
        """Records of the splits that are not trained on; deterministic. Those that are set aside are left out."""
        per_task = -(-n // len(tasks))
        examples = []
        for task in tasks:
            indices = self._held_out.get(task, np.empty(0, dtype=int))
            chosen = np.random.default_rng([self.config.seed, *task.encode()]).permutation(len(indices))[:per_task]
            examples += [self._usable(int(indices[i])) for i in np.sort(chosen)]
        return [example for example in examples if example is not None]

    def set_aside(self, example: Example, reason: str, step: int = 0) -> None:
        """Set the record of an example aside; raises DataError if too many are bad."""
        self.bad.add([BadRecord.of(example, reason, step)])

    def _usable(self, i: int) -> Example | None:
        """The example of record i; None if it is, or now has to be, set aside."""
        origin = self.table.origin(i)
        if origin in self.bad:
            return None
        values = self.table.values(i)
        (check,) = check_records([values], need_images=True, answers=False)
        fault = check.fault
        if fault is None:
            try:
                return self.example(i)
            except DataError as error:
                fault = str(error).removeprefix(f"{origin}: ")
        self.bad.add([BadRecord(origin, record_name(values), fault)])
        return None

    def _substitutes(self, task: str, k: int) -> Iterator[int]:
        """Positions of records among the task's, for a bad one at sample k."""
        yield from np.random.default_rng([self.config.seed, SUBSTITUTES, k, *task.encode()]).permutation(
            len(self._train[task])
        )

    def _permutation(self, task: str, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.config.seed, epoch, *task.encode()]).permutation(len(self._train[task]))


class PromptSampler:
    """Samples ``batch_size`` prompts per step, following the configured stages."""

    def __init__(self, stream: Stream, config: DataConfig, batch_size: int) -> None:
        self.stream = stream
        self.batch_size = batch_size
        stages = config.stages or [Stage(tasks=stream.tasks, steps=1)]
        self._stages: list[tuple[int, tuple[str, ...], Schedule]] = []
        start = 0
        for stage in stages:
            counts = [stream.count(task) for task in stage.tasks]
            weights = stage.weights or task_weights(counts, config.mixture, config.temperature)
            self._stages.append((start, stage.tasks, Schedule(weights)))
            start += stage.steps * batch_size

    def batch(self, step: int, shard: tuple[int, int] = (0, 1)) -> list[Prompt]:
        """Prompts of a step (from 0); with ``shard`` (i, n), every n-th of them starting at i."""
        first = step * self.batch_size
        return [self.prompt(k) for k in range(first + shard[0], first + self.batch_size, shard[1])]

    def prompt(self, k: int) -> Prompt:
        """The prompt with sample index k."""
        start, tasks, schedule = next(stage for stage in reversed(self._stages) if stage[0] <= k)
        task, task_index = schedule[k - start]
        return Prompt(k, self.stream.of_task(tasks[task], task_index))

    def replacement(self, prompt: Prompt, attempt: int) -> Prompt:
        """A different prompt of the same task, for replacement number ``attempt`` (from 1) of a sample."""
        k = attempt * REPLACEMENT_OFFSET + prompt.group_id % REPLACEMENT_OFFSET
        return self._redrawn(replace(prompt, group_id=k))

    def set_aside(self, prompt: Prompt, reason: str) -> Prompt:
        """Set the record of a prompt aside; returns the prompt with another record of the task.

        It is the prompt that is sampled at the same place when the record is known to be bad.

        Raises:
            DataError: Too many records are bad.
        """
        self.stream.set_aside(prompt.example, reason, step_of(prompt.group_id, self.batch_size) + 1)
        return self._redrawn(prompt)

    def _redrawn(self, prompt: Prompt) -> Prompt:
        k = prompt.group_id
        if k < REPLACEMENT_OFFSET:
            return self.prompt(k)
        return replace(prompt, example=self.stream.of_task(prompt.example.task, k))


def _restrict(tasks: dict[str, np.ndarray], indices: np.ndarray) -> dict[str, np.ndarray]:
    """Record indices of each task that are among ``indices``; tasks without any are omitted."""
    parts = {task: np.intersect1d(records, indices, assume_unique=True) for task, records in tasks.items()}
    return {task: records for task, records in parts.items() if len(records)}
