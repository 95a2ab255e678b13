"""HTML preview of sampled records of converted datasets: prompts as the model gets them, and their ideal answers."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geovlm_ray.config import Config
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example, GroundedText, target_boxes, target_texts
from geovlm_ray.data.answer_format import AnswerFormat
from geovlm_ray.data.answers import response_text
from geovlm_ray.data.images import ROOT_END, load_image
from geovlm_ray.data.parquet import Dataset, read_row
from geovlm_ray.data.table import Row
from geovlm_ray.data.validation.image_checks import RecordImage, is_absent
from geovlm_ray.data.validation.record_index import RecordIndex
from geovlm_ray.report.answers import response_boxes
from geovlm_ray.report.boxes import PREDICTED_COLOUR, TRUE_COLOUR, draw_boxes
from geovlm_ray.report.page import data_uri, fitted, render
from geovlm_ray.tasks import TASKS, find_task

SIDE = 512
"""Pixels of the longer side of an image on the page."""
BLANK_COLOUR = "#f1f5f9"


@dataclass
class Choice:
    """Numbers of the sampled records by task (``tasks``), and record counts by task and split (``counts``)."""

    index: RecordIndex
    tasks: dict[str, list[int]]
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)


def preview(
    datasets: Sequence[Dataset], config: Config, answers: AnswerFormat, *, each: int, seed: int, need_images: bool
) -> str:
    """The page, with ``each`` records of every task that alternate between its splits; deterministic for a seed.

    Prompts and ideal answers follow the configuration, with boxes written as ``answers`` says. Quarantined records are
    excluded. Without ``need_images``, boxes are drawn on a blank canvas if an image is missing. Raises DataError if a
    shard, record or image cannot be read.
    """
    choice = choose(datasets, each, seed)
    title = ", ".join(d.folder.resolve().name for d in datasets)
    tasks = []
    for name in sorted(choice.tasks, key=list(TASKS).index):
        records = _rows(choice.index, choice.tasks[name])
        counts = {split: n for (task, split), n in sorted(choice.counts.items()) if task == name}
        tasks.append(
            {
                "name": name,
                "title": name.replace("_", " "),
                "kind": TASKS[name].target_kind,
                "records": sum(counts.values()),
                "splits": ", ".join(f"{split} {n:,}" for split, n in counts.items()),
                "cards": [_card(row, d, config, answers, need_images) for d, row in records],
            }
        )
    return render("preview.html", title=title, each=each, tasks=tasks, system=config.prompt.system)


def choose(datasets: Sequence[Dataset], each: int, seed: int) -> Choice:
    """Sample records by the task and split columns.

    Raises:
        DataError: A shard or task cannot be read, or there are no records at all.
    """
    rng = np.random.default_rng(seed)
    sampled: defaultdict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    counts: Counter[tuple[str, str]] = Counter()
    shards, starts = [(d, shard) for d in datasets for shard in d.shards], [0]
    quarantined = {d.folder: d.quarantined_rows() for d in datasets}
    for dataset, shard in shards:
        number, excluded = starts[-1], quarantined[dataset.folder].get(shard.name, set())
        for batch in dataset.batches(shard):
            keys = zip(batch["task"].to_pylist(), map(str, batch["split"].to_pylist()), strict=True)
            for key, rank in zip(keys, rng.random(len(batch)), strict=True):
                row = number - starts[-1]
                if row not in excluded:
                    find_task(key[0], f"{shard}, row {row}: ")
                    counts[key] += 1
                    # Max-heap of the smallest random ranks.
                    heapq.heappush(sampled[key], (-rank, number))
                    if len(sampled[key]) > each:
                        heapq.heappop(sampled[key])
                number += 1
        starts.append(number)
    if not counts:
        raise DataError(f"{datasets[0].folder}: expected records that are not quarantined, found none")
    tasks = {}
    for task, _ in sampled:
        # Round-robin over the splits: the first of each, then the second of each.
        rounds = zip_longest(*(sorted(sampled[key]) for key in sorted(sampled) if key[0] == task))
        tasks[task] = [ranked[1] for ranked in chain.from_iterable(rounds) if ranked][:each]
    return Choice(RecordIndex(shards, np.array(starts)), tasks, counts)


def _rows(index: RecordIndex, numbers: Sequence[int]) -> Iterator[tuple[Dataset, Row]]:
    """The records with these numbers, in that order."""
    records = {number: (dataset, record) for number, dataset, record in index.read(np.sort(np.array(numbers)))}
    for number in numbers:
        dataset, record = records[number]
        _, shard, row = index.locate(number)
        yield dataset, read_row(record, f"{shard}, row {row}")


def _card(row: Row, dataset: Dataset, config: Config, answers: AnswerFormat, need_images: bool) -> dict[str, Any]:
    example = row.example
    references = tuple(f"{dataset.root.resolve()}{ROOT_END}{name}" for name in example.images)
    asked = replace(answers.of(replace(example, images=references)), images=example.images)
    ideal = response_text(asked, config.sft.reasoning, rotated=config.reward.rotated)
    gsd = None if example.gsd is None else f"GSD {example.gsd:g} m/px"
    boxes = target_boxes(example.target)
    is_boxed = TASKS[example.task].target_kind == "boxes" or isinstance(example.target, GroundedText)
    return {
        "example": example,
        "views": _views(asked, response_boxes(ideal, asked), dataset.root, need_images),
        "prompt": config.prompt.question(asked),
        "ideal": ideal,
        "metadata": [text for text in (example.split, example.dataset, example.sensor, gsd) if text],
        "texts": target_texts(example.target),
        "labels": Counter(box.label for box in boxes if box.label).most_common(12),
        "boxes": [", ".join(f"{c:g}" for c in b.coords) + (f"  {b.label}" if b.label else "") for b in boxes]
        if is_boxed
        else None,
        "source": [t for t in (example.id, f"{row.source_file}, record {row.source_record}", row.licence) if t],
    }


def _views(example: Example, read: Sequence[Box], root: Path, need_images: bool) -> list[str]:
    """All images as data URIs, the last, most recent one with the target boxes and those read from the ideal answer."""
    boxes = target_boxes(example.target)
    loaded = [_load(RecordImage(root.resolve(), name, example.pixels), need_images) for name in example.images]
    if not loaded and need_images:
        raise DataError(f"record {example.id!r} has no image; use --images optional to show records without images")
    if not any(loaded) and not boxes:
        return []
    images = [_blank(example.frame) if p is None else p for p in loaded] or [_blank(example.frame)]
    images[-1] = draw_boxes(images[-1], boxes, example.frame, TRUE_COLOUR)
    images[-1] = draw_boxes(images[-1], read, example.frame, PREDICTED_COLOUR, dashed=True)
    return [data_uri(image) for image in images]


def _load(image: RecordImage, need_images: bool) -> Image.Image | None:
    """The image as the page shows it; None if it is missing and not needed."""
    if is_absent(image):
        if not need_images:
            return None
        raise DataError(
            f"image {image.reference}: expected a file, found none; use --images optional to preview without images"
        )
    return fitted(load_image(image.reference, image.pixels), SIDE)


def _blank(frame: Frame) -> Image.Image:
    longest = max(frame.scale)
    width, height = (max(1, round(SIDE * side / longest)) for side in frame.scale)
    return Image.new("RGB", (width, height), BLANK_COLOUR)
