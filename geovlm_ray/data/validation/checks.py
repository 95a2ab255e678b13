"""Checks of single records: valid values, boxes inside the image, and a target that earns its reward."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely

from geovlm_ray.core.errors import UNREADABLE, DataError
from geovlm_ray.core.geometry import intersections, rotated_corners
from geovlm_ray.core.schema import Example, target_boxes, target_texts
from geovlm_ray.data.answers import MIN_IOU, response_text
from geovlm_ray.data.formats.base import short_repr
from geovlm_ray.data.table import to_row
from geovlm_ray.data.validation.balance import classes_of
from geovlm_ray.rewards import RewardConfig, needs_embedder, score_batch
from geovlm_ray.rewards.config import is_function
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.box_dialects import MAX_COORDINATE
from geovlm_ray.tasks.answers.labels import label_key, label_keys

MIN_INSIDE = 0.5
"""Minimum fraction of a box's area inside the image; a box with its centre outside has less."""
ROUNDING = 1e-6
"""Fraction of a box's area that may lie outside the image because of rounding."""
FULL_ACCURACY = 0.999
"""Minimum accuracy of a reference response, up to rounding; `MIN_IOU` for targets with boxes, which it rounds."""

_CONTROL = re.compile(r"<\|\w+\|>")
_PLACEHOLDER = re.compile(r"<image>|<video>")
_DEFAULT = RewardConfig()


@dataclass
class RecordCheck:
    """Result of checking a record: its fault or None, and warnings as (kind, detail) pairs.

    ``example`` is None if it cannot be built from the values.
    """

    example: Example | None = None
    fault: str | None = None
    warnings: list[tuple[str, str]] = field(default_factory=list)


def check_records(
    records: Sequence[Mapping[str, Any]], *, need_images: bool, answers: bool = True
) -> list[RecordCheck]:
    """Check records as returned by ``to_pylist``; results in the same order.

    Without ``answers``, the reference responses are not scored, which takes most of the time.
    """
    checks = [_check_record(record, need_images) for record in records]
    _check_boxes(checks)
    if answers:
        _check_answers(checks)
    return checks


def _check_record(record: Mapping[str, Any], need_images: bool) -> RecordCheck:
    try:
        example = to_row(record).example
        _check_values(example, need_images)
    except DataError as error:
        return RecordCheck(fault=str(error))
    return RecordCheck(example, warnings=list(_warnings(example)))


def _check_values(example: Example, need_images: bool) -> None:
    """Raise DataError if a value is absent or invalid."""
    for name in ("id", "question"):
        if not getattr(example, name).strip():
            raise DataError(f"{name}: expected text, found {short_repr(getattr(example, name))}")
    if need_images and not example.images:
        raise DataError("images: expected at least one, found none")
    for image in example.images:
        if not image.strip():
            raise DataError(f"images: expected paths, found {short_repr(image)}")
    _check_texts(example)


def _check_texts(example: Example) -> None:
    texts = target_texts(example.target)
    kind = TASKS[example.task].target_kind
    if kind != "boxes" and not texts:
        raise DataError(f"target of {example.task}: expected text, found none")
    if blank := [t for t in texts if not (label_key(t) if kind == "classes" else t.strip())]:
        raise DataError(f"target of {example.task}: expected text, found {short_repr(blank[0])}")
    labels = [b.label for b in target_boxes(example.target) if b.label]
    for text in (example.question, example.reasoning or "", *texts, *labels, *example.labels):
        if token := _CONTROL.search(text):
            raise DataError(f"expected plain text, found control token {token[0]!r}")


def _warnings(example: Example) -> Iterator[tuple[str, str]]:
    kind = TASKS[example.task].target_kind
    if kind == "boxes" and not example.target:
        yield "target without boxes", example.task
    if len(set(example.images)) < len(example.images):
        yield "duplicate image in a record", ", ".join(example.images)
    if placeholder := _PLACEHOLDER.search(example.question):
        yield "image placeholder in the question", placeholder[0]
    if example.labels:
        known = set(label_keys(example.labels))
        if unknown := [n for n in classes_of(example) if kind != "vqa" and not set(label_keys((n,))) & known]:
            yield "class not in the dataset's labels", unknown[0]


def _check_boxes(checks: Sequence[RecordCheck]) -> None:
    """Set the fault of records with a degenerate box or one mostly outside the image; warn of boxes partly outside."""
    boxes = [
        (check, k, b.coords, check.example.frame.scale)
        for check in checks
        if check.example is not None and check.fault is None
        for k, b in enumerate(target_boxes(check.example.target), 1)
    ]
    if not boxes:
        return
    coords = np.array([(*c, 0.0)[:5] for _, _, c, _ in boxes], dtype=np.float64)
    inside = fraction_inside(coords, np.array([scale for *_, scale in boxes], dtype=np.float64))
    for (check, k, box, scale), fraction in zip(boxes, inside, strict=True):
        if fraction >= 1 - ROUNDING or check.fault is not None:
            continue
        where = f"box {k}, '{', '.join(f'{c:g}' for c in np.array(box, dtype=float))}'"
        if np.isnan(fraction):
            check.fault = f"{where}: expected finite coordinates and a positive area"
        elif fraction < MIN_INSIDE:
            check.fault = (
                f"{where}: expected at least {MIN_INSIDE:.0%} of its area inside the image, "
                f"'{scale[0]:g} x {scale[1]:g}', found {fraction:.0%}"
            )
        else:
            check.warnings.append(("box extends beyond its image", where))


def fraction_inside(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Fraction of the area of boxes [n, 5] (x1, y1, x2, y2, angle) inside images of sizes [n, 2] (width, height); [n].

    NaN for a box that is not finite or has no area.
    """
    fraction = np.full(len(boxes), np.nan)
    valid = (np.abs(boxes) <= MAX_COORDINATE).all(axis=1) & (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
    shapes = shapely.polygons(rotated_corners(boxes[valid]))
    images = shapely.box(0.0, 0.0, sizes[valid, 0], sizes[valid, 1])
    area = shapely.area(shapes)
    inside = shapely.area(intersections(shapes, images))
    fraction[valid] = np.divide(inside, area, out=np.full(len(area), np.nan), where=area > 0)
    return fraction


def _check_answers(checks: Sequence[RecordCheck]) -> None:
    """Set the fault of records whose reference response, as used in supervised fine-tuning, lacks the full reward."""
    to_score: list[tuple[RecordCheck, Example, str]] = []
    for check in checks:
        example = check.example
        if example is None or check.fault is not None:
            continue
        try:
            text = response_text(example)
        except UNREADABLE as error:
            check.fault = f"cannot format an answer from its target: {error}"
            continue
        if len(text) > _DEFAULT.max_chars:
            check.fault = f"expected an answer of at most {_DEFAULT.max_chars} characters, found {len(text)}"
        elif not needs_embedder(example.task, _DEFAULT) and not is_function(_DEFAULT.form(example.task)):
            to_score.append((check, example, text))
    scores = score_batch([text for *_, text in to_score], [example for _, example, _ in to_score], _DEFAULT)
    for (check, example, text), score in zip(to_score, scores, strict=True):
        required = MIN_IOU if target_boxes(example.target) else FULL_ACCURACY
        if score.accuracy < required:
            check.fault = (
                f"reference response: expected an accuracy of at least {required:g}, found {score.accuracy:.2f} "
                f"for {short_repr(text)}"
            )
