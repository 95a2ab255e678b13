"""HTML preview of randomly sampled records of converted datasets, as the model receives them."""

from __future__ import annotations

import heapq
import html
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example, GroundedText, target_boxes, target_texts
from geovlm_ray.data.convert import UNREADABLE
from geovlm_ray.data.images import load_image
from geovlm_ray.data.parquet import Dataset
from geovlm_ray.data.table import Row, to_row
from geovlm_ray.data.validation.image_checks import RecordImage, is_absent
from geovlm_ray.data.validation.record_index import RecordIndex
from geovlm_ray.report.boxes import TRUE_COLOUR, draw_boxes
from geovlm_ray.report.page import data_uri, fitted, page
from geovlm_ray.tasks import TASKS

SIDE = 512
"""Pixels of the longer side of an image on the page."""
BLANK_COLOUR = "#f1f5f9"
PREVIEW_STYLE = """
body { max-width: 1400px; }
nav { position: sticky; top: 0; z-index: 1; background: #fffffff0; padding: .6rem 0; display: flex; flex-wrap: wrap;
  gap: .4rem; border-bottom: 1px solid var(--line); }
nav a, .chip { background: #eef2ff; color: #3730a3; border-radius: 999px; padding: .05rem .65rem; font-size: 13px;
  text-decoration: none; display: inline-block; margin: 1px 0; }
.chip.class { background: #dcfce7; color: #166534; font-size: 15px; }
.chip.meta { background: #f1f5f9; color: #475569; }
h2 { scroll-margin-top: 3.5rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(360px, 1fr)); gap: 1rem; align-items: start; }
.card { border: 1px solid var(--line); border-radius: 12px; overflow: hidden; background: white;
  box-shadow: 0 1px 3px #0f172a14; }
.views { display: grid; gap: 2px; background: #0f172a; }
.views.many { grid-template-columns: 1fr 1fr; }
figure { margin: 0; position: relative; display: flex; align-items: center; justify-content: center; }
figure img { width: 100%; display: block; cursor: zoom-in; }
figure.zoomed { position: fixed; inset: 0; z-index: 2; background: #0f172af2; }
figure.zoomed img { width: auto; height: 100%; max-width: 100%; object-fit: contain; cursor: zoom-out; }
figcaption { position: absolute; left: .4rem; bottom: .4rem; background: #0f172ab3; color: white; font-size: 12px;
  border-radius: 4px; padding: 0 .4rem; }
.text { padding: .7rem .9rem .8rem; overflow-wrap: anywhere; } .text p { margin: .45rem 0; white-space: pre-line; }
.answer { font-weight: 600; } blockquote { margin: .3rem 0; padding-left: .7rem; border-left: 3px solid #bbf7d0; }
details { margin: .3rem 0; color: #475569; font-size: 14px; } summary { cursor: pointer; color: var(--soft); }
footer { color: var(--soft); font-size: 12px; }
"""
ZOOM = """<script>document.addEventListener("click", event => {
  const zoomed = document.querySelector("figure.zoomed"), figure = event.target.closest("figure");
  if (zoomed) zoomed.classList.remove("zoomed"); else if (figure) figure.classList.add("zoomed"); });</script>"""


@dataclass
class Choice:
    """Numbers of the sampled records by task (``tasks``), and record counts by task and split (``counts``)."""

    index: RecordIndex
    tasks: dict[str, list[int]]
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)


def preview(datasets: Sequence[Dataset], *, each: int, seed: int, need_images: bool) -> str:
    """The page, with ``each`` records of every task that alternate between its splits; deterministic for a seed.

    Quarantined records are excluded. Without ``need_images``, boxes are drawn on a blank canvas if an image is
    missing.

    Raises:
        DataError: a shard, record or image cannot be read.
    """
    choice = choose(datasets, each, seed)
    title = ", ".join(d.folder.resolve().name for d in datasets)
    names = sorted(choice.tasks, key=list(TASKS).index)
    totals = {task: sum(n for (t, _), n in choice.counts.items() if t == task) for task in names}
    links = "".join(f'<a href="#{_e(t)}">{_e(_words(t))} <b>{totals[t]:,}</b></a>' for t in names)
    body = [
        f"<h1>{_e(title)} <small>{sum(totals.values()):,} records</small></h1>",
        f'<p class="note">{each} random records of every task; '
        f'<span class="key" style="border-color:{TRUE_COLOUR}"></span> target boxes. Click an image to '
        f"enlarge it.</p><nav>{links}</nav>",
    ]
    for task in names:
        splits = ", ".join(f"{split} {n:,}" for (t, split), n in sorted(choice.counts.items()) if t == task)
        rows = _rows(choice.index, choice.tasks[task])
        cards = "".join(_card(row, dataset, need_images) for dataset, row in rows)
        body.append(f'<h2 id="{_e(task)}">{_e(_words(task))} <small>{_e(splits)}</small></h2>')
        body.append(f'<div class="cards">{cards}</div>')
    return page(f"Preview of {title}", "".join(body) + ZOOM, PREVIEW_STYLE)


def choose(datasets: Sequence[Dataset], each: int, seed: int) -> Choice:
    """Sample records; reads only the task and split columns.

    Raises:
        DataError: a shard cannot be read, or there are no records.
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
                if number - starts[-1] not in excluded and key[0] in TASKS:
                    counts[key] += 1
                    # Max-heap of the smallest random ranks.
                    heapq.heappush(sampled[key], (-rank, number))
                    if len(sampled[key]) > each:
                        heapq.heappop(sampled[key])
                number += 1
        starts.append(number)
    if not counts:
        raise DataError(f"{datasets[0].folder}: expected records that are not quarantined, found none")
    tasks = {
        task: _round_robin([sorted(sampled[k]) for k in sorted(sampled) if k[0] == task], each) for task, _ in sampled
    }
    return Choice(RecordIndex(shards, np.array(starts)), tasks, counts)


def _round_robin(pools: list[list[tuple[float, int]]], each: int) -> list[int]:
    """Round-robin over the pools: the first of each, then the second of each, up to ``each`` in total."""
    longest = max(map(len, pools))
    return [pool[k][1] for k in range(longest) for pool in pools if k < len(pool)][:each]


def _rows(index: RecordIndex, numbers: Sequence[int]) -> Iterator[tuple[Dataset, Row]]:
    """The records with these numbers, in that order."""
    records = {number: (dataset, record) for number, dataset, record in index.read(np.sort(np.array(numbers)))}
    for number in numbers:
        dataset, record = records[number]
        try:
            yield dataset, to_row(record)
        except UNREADABLE as error:
            where = index.name(number)
            raise DataError(f"{where}: {error}; `geovlm-ray data validate` quarantines such records") from error


def _card(row: Row, dataset: Dataset, need_images: bool) -> str:
    example = row.example
    views = _views(example, dataset.root, need_images)
    many = " many" if len(views) > 1 else ""
    metadata = [example.split, example.dataset, example.sensor, None if example.gsd is None else f"{example.gsd:g} m"]
    chips = "".join(f'<span class="chip meta">{_e(text)}</span> ' for text in metadata if text)
    reasoning = f"<details><summary>reasoning</summary><p>{_e(example.reasoning)}</p></details>"
    source = " · ".join(_e(t) for t in (example.id, f"{row.source_file}, record {row.source_record}", row.licence) if t)
    return (
        f'<article class="card"><div class="views{many}">{"".join(views)}</div><div class="text">{chips}'
        f"<p>{_e(example.question)}</p>{_answer(example)}{reasoning if example.reasoning else ''}"
        f"<footer>{source}</footer></div></article>"
    )


def _views(example: Example, root: Path, need_images: bool) -> list[str]:
    """All images as figures, with the target boxes on the last, most recent one."""
    boxes = target_boxes(example.target)
    loaded = [_load(RecordImage(root.resolve(), name, example.pixels), need_images) for name in example.images]
    if not loaded and need_images:
        raise DataError(f"record {example.id!r} has no image; use --images optional to show records without images")
    if not any(loaded) and not boxes:
        return []
    images = [_blank(example.frame) if p is None else p for p in loaded] or [_blank(example.frame)]
    images[-1] = draw_boxes(images[-1], boxes, example.frame, TRUE_COLOUR)
    return [_figure(image, f"{k} of {len(images)}") for k, image in enumerate(images, 1)]


def _figure(image: Image.Image, caption: str) -> str:
    shown = "" if caption == "1 of 1" else f"<figcaption>{caption}</figcaption>"
    return f'<figure><img alt="" src="{data_uri(image)}">{shown}</figure>'


def _load(image: RecordImage, need_images: bool) -> Image.Image | None:
    """The image as the page shows it; None if it is missing and not needed."""
    if is_absent(image):
        if need_images:
            raise DataError(
                f"image {image.reference}: expected a file, found none; use --images optional to preview without images"
            )
        return None
    return fitted(load_image(image.reference, image.pixels), SIDE)


def _blank(frame: Frame) -> Image.Image:
    width, height = frame.scale
    longest = max(width, height)
    size = (max(1, round(SIDE * width / longest)), max(1, round(SIDE * height / longest)))
    return Image.new("RGB", size, BLANK_COLOUR)


def _answer(example: Example) -> str:
    """The target as HTML."""
    kind = TASKS[example.task].target_kind
    texts = target_texts(example.target)
    if kind == "classes":
        return "<p>" + " ".join(f'<span class="chip class">{_e(t)}</span>' for t in texts) + "</p>"
    if kind == "captions":
        return "".join(f"<blockquote>{_e(t)}</blockquote>" for t in texts)
    words = "".join(f'<p class="answer">{_e(t)}</p>' for t in texts)
    is_boxed = kind == "boxes" or isinstance(example.target, GroundedText)
    return words + (_box_list(target_boxes(example.target)) if is_boxed else "")


def _box_list(boxes: Sequence[Box]) -> str:
    labels = Counter(box.label for box in boxes if box.label)
    chips = " ".join(f'<span class="chip class">{_e(name)} × {n}</span>' for name, n in labels.most_common(12))
    rows = "\n".join(", ".join(f"{c:g}" for c in b.coords) + (f"  {b.label}" if b.label else "") for b in boxes)
    count = f"{len(boxes)} box{'' if len(boxes) == 1 else 'es'}"
    return f"<p>{chips}</p><details><summary>{count}</summary><code>{_e(rows)}</code></details>"


def _words(task: str) -> str:
    return task.replace("_", " ")


def _e(text: object) -> str:
    return html.escape(str(text))
