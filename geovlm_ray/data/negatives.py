"""Records that ask for the objects of a class of which a picture shows none."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from geovlm_ray.core.files import writing
from geovlm_ray.core.schema import target_boxes
from geovlm_ray.data.convert import Counts
from geovlm_ray.data.parquet import Dataset
from geovlm_ray.data.table import UNCLEAR, Row, to_table
from geovlm_ray.tasks import TASKS

FILE = "part-negatives.parquet"
"""Shard of these records in a converted dataset."""


@dataclass
class _Picture:
    """A detection record of one class, without its boxes."""

    row: Row
    label: str


def write_negatives(share: float, folder: Path) -> Counts:
    """Write the shard of `negative_rows` into a converted dataset, and count them; none for a share of 0."""
    if not share:
        return Counts()
    rows = list(negative_rows(folder, share))
    if rows:
        path = folder / FILE
        with writing(path), path.open("wb") as file:
            pq.write_table(to_table(rows), file, compression="zstd")
    notes = (f"negatives: {len(rows):,} records about classes that are not shown",)
    tasks, splits = (Counter(values) for values in ([r.example.task for r in rows], [r.example.split for r in rows]))
    return Counts(records=len(rows), tasks=tasks, splits=splits, notes=notes)


def negative_rows(folder: Path, share: float, seed: int = 0) -> Iterator[Row]:
    """New records for a converted dataset, so that they are the ``share`` of its detection records.

    Each asks about a class of the dataset that its picture does not show, in the words of a record about a class that
    it shows; the right answer is that there are none. A dataset whose questions name no class, or with one class, has
    none. The classes of a picture are those of all its records, and those that it may show (`UNCLEAR`).
    """
    pictures: dict[tuple[str, ...], _Picture] = {}
    shown: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    classes: dict[str, None] = {}
    positives = 0
    for _, _, row in Dataset(folder, folder).rows():
        example = row.example
        if TASKS[example.task].target_kind != "boxes":
            continue
        labels = {box.label for box in target_boxes(example.target) if box.label}
        positives += 1
        classes |= dict.fromkeys(sorted(labels))
        if len(labels) == 1 and _named(next(iter(labels))).search(example.question):
            template = replace(row, example=replace(example, target=()), extra={}, parts=0)
            pictures.setdefault(example.images, _Picture(template, next(iter(labels))))
        shown[example.images] |= labels | set(row.extra.get(UNCLEAR, ()))
    absent = [(key, name) for key in pictures for name in classes if name not in shown[key]]
    wanted = min(len(absent), round(share / (1 - share) * positives))
    chosen = np.random.default_rng(seed).permutation(len(absent))[:wanted]
    for k in sorted(chosen.tolist()):
        key, name = absent[k]
        yield _about(pictures[key], name)


def _about(picture: _Picture, name: str) -> Row:
    example = picture.row.example
    identity = f"{example.id}, no {name}"
    is_raw = picture.label in example.question and re.search("[-_]", picture.label)
    words = name if is_raw else re.sub("[-_]", " ", name)
    question = _named(picture.label).sub(lambda _: words, example.question)
    return replace(picture.row, example=replace(example, id=identity, question=question))


def _named(label: str) -> re.Pattern[str]:
    """A label in a question, in which spaces may stand for its underscores and hyphens."""
    words = map(re.escape, re.split("[-_]", label))
    return re.compile(rf"(?<!\w){'[-_ ]'.join(words)}(?!\w)", re.IGNORECASE)
