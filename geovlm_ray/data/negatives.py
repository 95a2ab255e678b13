"""Records that ask for the objects of a class of which a picture shows none."""

from __future__ import annotations

import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from geovlm_ray.core.files import writing
from geovlm_ray.core.schema import is_rotated, target_boxes
from geovlm_ray.data.convert import EMPTY, Counts
from geovlm_ray.data.parquet import Dataset
from geovlm_ray.data.table import UNCLEAR, Row, to_table
from geovlm_ray.tasks import TASKS

FILE = "part-negatives.parquet"
"""Shard of these records in a converted dataset."""


@dataclass
class _Template:
    """A detection record of one class, without its boxes."""

    row: Row
    label: str


def write_negatives(share: float, folder: Path) -> Counts:
    """Write the shard of `negative_rows` into a converted dataset, and count them; none for a share of 0.

    Pictures without objects in the folder `EMPTY` are used up: those that no record is about are deleted.
    """
    if not share:
        return Counts()
    rows = list(negative_rows(folder, share))
    if rows:
        path = folder / FILE
        with writing(path), path.open("wb") as file:
            pq.write_table(to_table(rows), file, compression="zstd")
    used = {image for row in rows for image in row.example.images}
    unused = {image for row in _pictures_without_objects(folder) for image in row.example.images} - used
    for image in unused:
        # Images of the source are not below this folder.
        (folder / image).unlink(missing_ok=True)
    shutil.rmtree(folder / EMPTY, ignore_errors=True)
    notes = (f"negatives: {len(rows):,} records about classes that are not shown",)
    tasks, splits = (Counter(values) for values in ([r.example.task for r in rows], [r.example.split for r in rows]))
    return Counts(records=len(rows), tasks=tasks, splits=splits, notes=notes)


def negative_rows(folder: Path, share: float, seed: int = 0) -> Iterator[Row]:
    """New records for a converted dataset, so that they are the ``share`` of its detection records.

    Each asks about a class of the dataset that its picture does not show, in the words of a record about a class that
    is shown; the right answer is that there are none. Pictures are those of the dataset with a record about one class,
    and those without objects in the folder `EMPTY`. A dataset whose questions name no class has no negatives. The
    classes of a picture are those of all its records, and those that it may show (`UNCLEAR`).
    """
    templates: dict[tuple[str, ...], _Template] = {}
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
            asked = replace(example, target=(), reasoning=None, rotated=example.rotated or is_rotated(example.target))
            template = _Template(replace(row, example=asked, extra={}, parts=0), next(iter(labels)))
            templates.setdefault(example.images, template)
        shown[example.images] |= labels | set(row.extra.get(UNCLEAR, ()))
    empty = list(_pictures_without_objects(folder)) if templates else []
    for row in empty:
        shown[row.example.images] |= set(row.extra.get(UNCLEAR, ()))
    pictures = [*(template.row for template in templates.values()), *empty]
    absent = [(k, name) for k, row in enumerate(pictures) for name in classes if name not in shown[row.example.images]]
    wanted = min(len(absent), round(share / (1 - share) * positives))
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(absent))[:wanted]
    own = list(templates.values())
    for i in sorted(chosen.tolist()):
        k, name = absent[i]
        yield _about(pictures[k], own[k] if k < len(own) else own[rng.integers(len(own))], name)


def _pictures_without_objects(folder: Path) -> Iterator[Row]:
    for _, _, row in Dataset(folder / EMPTY, folder).rows():
        yield row


def _about(picture: Row, template: _Template, name: str) -> Row:
    """A record that asks about a class as the template does about its own, so that only the picture tells the answer.

    Notations that write labels ask for one wherever the record has any, so that a template without ``labels``, which
    had them from its boxes, gets the class.
    """
    asked = template.row.example
    is_raw = template.label in asked.question and re.search("[-_]", template.label)
    words = name if is_raw else re.sub("[-_]", " ", name)
    example = replace(
        picture.example,
        id=f"{picture.example.id}, no {name}",
        task=asked.task,
        question=_named(template.label).sub(lambda _: words, asked.question),
        dialect=asked.dialect,
        labels=asked.labels or (name,),
        rotated=asked.rotated,
    )
    return replace(picture, example=example, extra={}, parts=0)


def _named(label: str) -> re.Pattern[str]:
    """A label in a question, in which spaces may stand for its underscores and hyphens."""
    words = map(re.escape, re.split("[-_]", label))
    return re.compile(rf"(?<!\w){'[-_ ]'.join(words)}(?!\w)", re.IGNORECASE)
