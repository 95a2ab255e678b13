"""What is asked of a record by itself: sound values, boxes in their image, a target that its reward can read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import rotated_corners
from geovlm_ray.core.schema import Example, target_boxes, target_texts
from geovlm_ray.data.answers import FOUND, response_text
from geovlm_ray.data.convert import UNREADABLE
from geovlm_ray.data.formats.base import shown
from geovlm_ray.data.table import to_row
from geovlm_ray.data.validation.balance import classes_of
from geovlm_ray.rewards import RewardConfig, needs_embedder, score_batch
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.boxes import DIALECTS, MAX_COORDINATE
from geovlm_ray.tasks.labels import label_key, label_keys

INSIDE = 0.5
"""Share of a box's area that must lie in its image. A box whose centre lies outside has less than half inside."""
EDGE = 1e-6
"""Share of a box's area that may lie outside by rounding alone."""
FULL = 0.999
"""Accuracy of an ideal answer, up to the rounding of sums; of boxes, which it writes rounded, `FOUND`."""

_CONTROL = re.compile(r"<\|\w+\|>")
_PLACEHOLDER = re.compile(r"<image>|<video>")
_DEFAULT = RewardConfig()


@dataclass
class Verdict:
    """What was found about a record: why it is bad, or None; and what is odd about it, as (kind, detail) pairs.

    ``example`` is None where the values do not even make one.
    """

    example: Example | None = None
    fault: str | None = None
    warnings: list[tuple[str, str]] = field(default_factory=list)


def check_records(records: Sequence[Mapping[str, Any]], *, need_images: bool) -> list[Verdict]:
    """Verdicts on records as ``to_pylist`` gives them, in their order."""
    verdicts = [_values(record, need_images) for record in records]
    _check_boxes(verdicts)
    _check_answers(verdicts)
    return verdicts


def _values(record: Mapping[str, Any], need_images: bool) -> Verdict:
    try:
        if None in record["target"]["texts"]:
            raise DataError("target: expected text, found null")
        example = to_row(record).example
        _check_values(example, need_images)
        return Verdict(example, warnings=list(_oddities(example)))
    except UNREADABLE as error:
        return Verdict(fault=str(error) if isinstance(error, DataError) else f"its values do not fit: {error!r}")


def _check_values(example: Example, need_images: bool) -> None:
    """Raise DataError where a value is absent or not what it may be."""
    for name in ("id", "question", "dataset", "split"):
        value = getattr(example, name)
        if not isinstance(value, str) or (name in ("id", "question") and not value.strip()):
            raise DataError(f"{name}: expected text, found {shown(value)}")
    if need_images and not example.images:
        raise DataError("images: expected at least one, found none")
    for image in example.images:
        if not isinstance(image, str) or not image.strip():
            raise DataError(f"images: expected paths, found {shown(image)}")
    frame = example.frame
    if frame.kind not in ("percent", "permille", "pixel") or not 0 < max(frame.scale) <= MAX_COORDINATE:
        raise DataError(
            f"frame: expected percent, permille or pixel with a size of at most {MAX_COORDINATE:g}, found {shown(frame)}"
        )
    if example.dialect not in DIALECTS:
        raise DataError(f"dialect: expected one of {', '.join(DIALECTS)}, found {example.dialect!r}")
    _check_texts(example)


def _check_texts(example: Example) -> None:
    texts = target_texts(example.target)
    kind = TASKS[example.task].target_kind
    if kind != "boxes" and not texts:
        raise DataError(f"target of {example.task}: expected text, found none")
    if blank := [t for t in texts if not isinstance(t, str) or not (label_key(t) if kind == "classes" else t.strip())]:
        raise DataError(f"target of {example.task}: expected text, found {shown(blank[0])}")
    labels = [b.label for b in target_boxes(example.target) if b.label]
    for text in (example.question, example.reasoning or "", *texts, *labels, *example.labels):
        if found := _CONTROL.search(text):
            raise DataError(f"expected plain text, found the model's control token {found[0]!r}")


def _oddities(example: Example) -> Iterator[tuple[str, str]]:
    kind = TASKS[example.task].target_kind
    if kind == "boxes" and not example.target:
        yield "a target without any box", example.task
    if len(set(example.images)) < len(example.images):
        yield "the same image more than once in a record", ", ".join(example.images)
    if found := _PLACEHOLDER.search(example.question):
        yield "an image placeholder in the question", found[0]
    if example.labels:
        known = set(label_keys(example.labels))
        if strange := [n for n in classes_of(example) if kind != "vqa" and not set(label_keys((n,))) & known]:
            yield "a class that is not among the dataset's labels", strange[0]


def _check_boxes(verdicts: Sequence[Verdict]) -> None:
    """Note every record's first box that is no area, or mostly outside the image; and overhangs."""
    found = [
        (verdict, k, b.coords, verdict.example.frame.scale)
        for verdict in verdicts
        if verdict.example is not None and verdict.fault is None
        for k, b in enumerate(target_boxes(verdict.example.target), 1)
    ]
    if not found:
        return
    coords = np.array([(*c, 0.0)[:5] for _, _, c, _ in found], dtype=np.float64)
    inside = share_inside(coords, np.array([scale for *_, scale in found], dtype=np.float64))
    for (verdict, k, box, scale), share in zip(found, inside, strict=True):
        if share >= 1 - EDGE or verdict.fault is not None:
            continue
        where = f"box {k}, '{', '.join(f'{c:g}' for c in np.array(box, dtype=float))}'"
        if np.isnan(share):
            verdict.fault = f"{where}: expected finite numbers and an area"
        elif share < INSIDE:
            verdict.fault = f"{where}: {100 * share:.0f}% of it lies in its image, '{scale[0]:g} x {scale[1]:g}'"
        else:
            verdict.warnings.append(("a box that reaches over the edge of its image", where))


def share_inside(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Share of the area of boxes [n, 5] (x1, y1, x2, y2, angle) that lies in images [n, 2] of a width and height.

    NaN for a box that is not finite, or has no area.
    """
    share = np.full(len(boxes), np.nan)
    sound = (np.abs(boxes) <= MAX_COORDINATE).all(axis=1) & (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
    shapes = shapely.polygons(rotated_corners(boxes[sound]))
    images = shapely.box(0.0, 0.0, sizes[sound, 0], sizes[sound, 1])
    area = shapely.area(shapes)
    inside = shapely.area(shapely.intersection(shapes, images))
    share[sound] = np.divide(inside, area, out=np.full(len(area), np.nan), where=area > 0)
    return share


def _check_answers(verdicts: Sequence[Verdict]) -> None:
    """Note records whose ideal answer, as supervised training would teach it, does not earn the reward it should."""
    judged: list[tuple[Verdict, Example, str]] = []
    for verdict in verdicts:
        example = verdict.example
        if example is None or verdict.fault is not None:
            continue
        try:
            text = response_text(example)
        except UNREADABLE as error:
            verdict.fault = f"no answer can be written from its target: {error}"
            continue
        if len(text) > _DEFAULT.max_chars:
            verdict.fault = f"its answer has {len(text)} characters, rewards read at most {_DEFAULT.max_chars}"
        elif not needs_embedder(example.task, _DEFAULT):
            judged.append((verdict, example, text))
    scores = score_batch([text for *_, text in judged], [example for _, example, _ in judged], _DEFAULT)
    for (verdict, example, text), score in zip(judged, scores, strict=True):
        if score.accuracy < (FOUND if target_boxes(example.target) else FULL):
            verdict.fault = f"its own answer {shown(text)} earns only {score.accuracy:.2f} of 1 for accuracy"
