"""Examples of a benchmark: synthetic scenes, or the records of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example, target_boxes
from geovlm_ray.data.answer_format import AnswerFormat
from geovlm_ray.data.parquet import RecordTable, open_datasets
from geovlm_ray.data.sampler import HELD_OUT_SEED
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.evaluation.metrics.detection import size_group
from geovlm_ray.evaluation.registry import ANY, Benchmark
from geovlm_ray.tasks import TASKS

SYNTHETIC_EXAMPLES = 200
"""Examples of a synthetic benchmark without a limit."""


@dataclass(frozen=True)
class BenchmarkExample:
    """An example with the benchmark's prompt; ``group`` is its category in the dataset, such as the question type."""

    example: Example
    group: str | None = None


class BenchmarkExamples(Sequence[BenchmarkExample]):
    """The selected examples of a benchmark, read lazily."""

    def __init__(self, count: int, read: Callable[[int], BenchmarkExample], limit: int | None) -> None:
        selected = count if limit is None else min(count, limit)
        # Evenly spaced and deterministic.
        self._indices = np.linspace(0, count - 1, selected).astype(int)
        self._read = read

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, i: int) -> BenchmarkExample:  # type: ignore[override]
        return self._read(int(self._indices[i]))


def synthetic_examples(benchmark: Benchmark, answers: AnswerFormat, limit: int | None) -> BenchmarkExamples:
    """Synthetic scenes with the held-out seed, which training never uses."""

    def read(i: int) -> BenchmarkExample:
        return BenchmarkExample(answers.of(scene_example(benchmark.task, HELD_OUT_SEED, i, split="heldout")))

    return BenchmarkExamples(limit or SYNTHETIC_EXAMPLES, read, limit)


def dataset_examples(
    benchmark: Benchmark, data: Path, shards: Path, answers: AnswerFormat, limit: int | None
) -> BenchmarkExamples:
    """Records of the benchmark's split and task in the shards of its ``data``, at most ``limit``, evenly spaced.

    Boxes are in the format ``answers``.

    Raises:
        DataError: the dataset cannot be read, or has no record of that split and task.
    """
    table = RecordTable(open_datasets(shards))
    splits, tasks = table.indices_by("split"), table.indices_by("task")
    none = np.empty(0, dtype=int)
    indices = tasks.get(benchmark.task, none)
    if benchmark.split != ANY:
        indices = np.intersect1d(indices, splits.get(benchmark.split, none), assume_unique=True)
    if not len(indices):
        raise DataError(
            f"{data}: expected records of {benchmark.task} in the split {benchmark.split!r} for the benchmark "
            f"{benchmark.name}, found tasks {', '.join(tasks)} and splits {', '.join(splits)}"
        )

    def read(i: int) -> BenchmarkExample:
        row = table.row(int(indices[i]))
        example = answers.of(row.example)
        group = record_group(example, row.extra)
        if benchmark.prompt is not None:
            question = benchmark.prompt.format(question=example.question, labels=", ".join(example.labels))
            example = replace(example, question=question)
        return BenchmarkExample(example, group)

    return BenchmarkExamples(len(indices), read, limit)


def record_group(example: Example, extra: Mapping[str, Any]) -> str | None:
    """The category of a record in its dataset, or None: the question type, or the object size.

    It is in the source fields that `Example` lacks: RSVQA's ``type``, or GeoChat's ``size_group``, which EarthDial's
    shards wrap in double quotes. Without ``size_group``, the size is computed from the true boxes.
    """
    kind = TASKS[example.task].target_kind
    given = extra.get("type" if kind == "vqa" else "size_group")
    name = given.strip('"') if isinstance(given, str) else ""
    if name:
        return name
    return size_group(target_boxes(example.target), example.frame) if kind == "boxes" else None
