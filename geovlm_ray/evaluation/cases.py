"""The records of a benchmark: drawn scenes, a converted dataset, or a source in the benchmark's own format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Example
from geovlm_ray.data.frames import in_frame
from geovlm_ray.data.parquet import RecordTable, open_datasets
from geovlm_ray.data.sampler import HELD_OUT_SEED
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.evaluation.groups import record_group
from geovlm_ray.evaluation.registry import ANY, Benchmark

DRAWN = 200
"""Scenes of a drawn benchmark, where no limit is given."""


@dataclass(frozen=True)
class Case:
    """An example as the model is asked it; ``group`` is what its dataset files it under, such as a question's type."""

    example: Example
    group: str | None = None


class Cases(Sequence[Case]):
    """The chosen records of a benchmark, each read when it is asked for."""

    def __init__(self, count: int, read: Callable[[int], Case], limit: int | None) -> None:
        chosen = count if limit is None else min(count, limit)
        # An even choice, the same each time.
        self._places = np.linspace(0, count - 1, chosen).astype(int)
        self._read = read

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: int) -> Case:  # type: ignore[override]
        return self._read(int(self._places[i]))


def drawn_cases(benchmark: Benchmark, limit: int | None) -> Cases:
    """Scenes that no training uses."""

    def read(i: int) -> Case:
        return Case(scene_example(benchmark.task, HELD_OUT_SEED, i, split="heldout"))

    return Cases(limit or DRAWN, read, limit)


def dataset_cases(benchmark: Benchmark, data: Path, shards: Path, frame: Frame | None, limit: int | None) -> Cases:
    """Records of the benchmark's split and task.

    Args:
        data: where its data lies.
        shards: what that is as a dataset.
        frame: the frame in which the model answers; None for the dataset's.
        limit: at most so many records, evenly chosen.

    Raises:
        DataError: it cannot be read, or holds no record of that split and task.
    """
    table = RecordTable(open_datasets(shards))
    splits, tasks = table.places("split"), table.places("task")
    none = np.empty(0, dtype=int)
    places = tasks.get(benchmark.task, none)
    if benchmark.split != ANY:
        places = np.intersect1d(places, splits.get(benchmark.split, none), assume_unique=True)
    if not len(places):
        raise DataError(
            f"{data}: expected records of {benchmark.task} in the split {benchmark.split!r} for the benchmark "
            f"{benchmark.name}, found tasks {', '.join(tasks)} and splits {', '.join(splits)}"
        )

    def read(i: int) -> Case:
        row = table.row(int(places[i]))
        example = row.example if frame is None else in_frame(row.example, frame)
        return Case(_asked(benchmark, example), record_group(example, row.extra))

    return Cases(len(places), read, limit)


def _asked(benchmark: Benchmark, example: Example) -> Example:
    """The example with the benchmark's question, where it has one of its own."""
    if benchmark.prompt is None:
        return example
    question = benchmark.prompt.format(question=example.question, labels=", ".join(example.labels))
    return replace(example, question=question)
