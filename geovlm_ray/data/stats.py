"""Statistics of converted datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example, target_boxes, target_texts
from geovlm_ray.data.parallel import Workers
from geovlm_ray.data.parquet import Dataset, read_row
from geovlm_ray.data.validation.balance import classes_of
from geovlm_ray.data.validation.tally import Tally
from geovlm_ray.tasks import TASKS

MAX_LISTED = 1_000
SIZES = {"small": 0.01, "medium": 0.1, "large": float("inf")}
"""Box size groups: upper bounds of the box area as a fraction of the image area."""


class Histogram(Counter[int]):
    """Counts of integer values."""

    def summary(self) -> dict[str, float]:
        """Mean, lower median and largest value; empty without values."""
        if not self:
            return {}
        values, counts = list(self), list(self.values())
        median = np.quantile(values, 0.5, method="inverted_cdf", weights=counts)
        return {"mean": float(np.average(values, weights=counts)), "median": int(median), "largest": max(values)}


@dataclass
class TaskStats:
    """Statistics of one task. Question and answer lengths are in words; every text of a target counts as an answer."""

    records: int = 0
    reasoned: int = 0
    images: Histogram = field(default_factory=Histogram)
    questions: Histogram = field(default_factory=Histogram)
    answers: Histogram = field(default_factory=Histogram)
    boxes: Histogram = field(default_factory=Histogram)
    sizes: Counter[str] = field(default_factory=Counter)
    classes: Tally = field(default_factory=Tally)

    def add(self, example: Example) -> None:
        """Add a record."""
        boxes = target_boxes(example.target)
        self.records += 1
        self.reasoned += bool(example.reasoning)
        self.images[len(example.images)] += 1
        self.questions[len(example.question.split())] += 1
        self.answers.update(len(text.split()) for text in target_texts(example.target))
        if TASKS[example.task].target_kind in ("boxes", "grounded"):
            self.boxes[len(boxes)] += 1
        self.sizes.update(size_group(box, example.frame) for box in boxes)
        for name in classes_of(example):
            self.classes.add(name)

    def merge(self, other: TaskStats) -> None:
        """Add the statistics of other records of the task."""
        self.records += other.records
        self.reasoned += other.reasoned
        for name in ("images", "questions", "answers", "boxes", "sizes"):
            getattr(self, name).update(getattr(other, name))
        self.classes.merge(other.classes)


@dataclass
class Stats:
    """Statistics of all records that are not quarantined. ``groups`` counts them by dataset, split and task."""

    set_aside: int = 0
    groups: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    tasks: dict[str, TaskStats] = field(default_factory=dict)
    sensors: Tally = field(default_factory=Tally)
    gsd: Tally = field(default_factory=Tally)

    @property
    def records(self) -> int:
        """Number of records."""
        return self.groups.total()

    def add(self, example: Example) -> None:
        """Add a record."""
        self.groups[str(example.dataset), str(example.split), example.task] += 1
        self.tasks.setdefault(example.task, TaskStats()).add(example)
        self.sensors.add(example.sensor or "unknown")
        self.gsd.add("unknown" if example.gsd is None else f"{example.gsd:g} m")

    def merge(self, other: Stats) -> None:
        """Add the statistics of other records."""
        self.set_aside += other.set_aside
        self.groups.update(other.groups)
        for name, task in other.tasks.items():
            self.tasks.setdefault(name, TaskStats()).merge(task)
        self.sensors.merge(other.sensors)
        self.gsd.merge(other.gsd)

    def plain(self) -> dict[str, Any]:
        """JSON-serializable form, with the `MAX_LISTED` most frequent classes, sensors and sampling distances."""
        return {
            "records": self.records,
            "set_aside": self.set_aside,
            "groups": [
                {"dataset": dataset, "split": split, "task": task, "records": n}
                for (dataset, split, task), n in sorted(self.groups.items())
            ],
            "tasks": {
                name: {
                    "records": task.records,
                    "with_reasoning": task.reasoned,
                    "images_per_record": task.images.summary(),
                    "question_words": task.questions.summary(),
                    "answer_words": task.answers.summary(),
                    "boxes_per_record": task.boxes.summary(),
                    "box_sizes": {size: task.sizes[size] for size in SIZES} if task.sizes else {},
                    "classes": dict(task.classes.ranked()[:MAX_LISTED]),
                    "classes_distinct": len(task.classes.names),
                }
                for name, task in sorted(self.tasks.items())
            },
            "sensors": dict(self.sensors.ranked()[:MAX_LISTED]),
            "gsd": dict(self.gsd.ranked()[:MAX_LISTED]),
        }


def size_group(box: Box, frame: Frame) -> str:
    """Size group of a box in `SIZES`; its angle is ignored."""
    x1, y1, x2, y2 = box.coords[:4]
    width, height = frame.scale
    fraction = abs((x2 - x1) * (y2 - y1)) / (width * height)
    return next((name for name, limit in SIZES.items() if fraction < limit), "large")


def collect_stats(datasets: Sequence[Dataset], *, workers: int, on_progress: Callable[[int], None]) -> Stats:
    """Collect the statistics of datasets; ``on_progress`` receives the number of processed records.

    Raises:
        DataError: A shard or record cannot be read.
        RunError: A worker process died.
    """
    stats = Stats()
    quarantined = {d.folder: d.quarantined_rows() for d in datasets}
    jobs = [(d, shard, frozenset(quarantined[d.folder].get(shard.name, ()))) for d in datasets for shard in d.shards]
    with Workers(workers) as pool:
        for part in pool.in_order(_shard_stats, jobs):
            stats.merge(part)
            on_progress(stats.records)
    return stats


def _shard_stats(job: tuple[Dataset, Path, frozenset[int]]) -> Stats:
    dataset, shard, quarantined = job
    stats = Stats(set_aside=len(quarantined))
    for row, record in enumerate(dataset.records(shard)):
        if row not in quarantined:
            stats.add(read_row(record, f"{shard}, row {row}").example)
    return stats
