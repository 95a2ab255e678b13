"""COCO average precision and F1 of boxes, both over horizontal boxes (an angle is dropped, as in the rewards).

Answers carry no confidences. F1 needs none and does not depend on any order. For AP every box has the same
confidence, and the order is fixed: records as in the file, boxes as answered.

Where the truth names its boxes and the answers name some of theirs, boxes match only under the same name, and AP
is the mean over the true names; else boxes alone count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from geovlm_ray.core.geometry import Frame, hbb, iou_hbb, match
from geovlm_ray.core.schema import Box
from geovlm_ray.evaluation.metrics.bootstrap import Statistic
from geovlm_ray.tasks.boxes import BoxAnswer
from geovlm_ray.tasks.labels import label_key

AP_DRAWS = 200
LOOSE = 0.25
COCO_THRESHOLDS = np.linspace(0.5, 0.95, 10)
MOST_BOXES = 1000
"""AP does not look at an answer's boxes beyond it; F1 counts all."""

SIDE = 448
SIZE_LIMITS = {"small": 32**2, "medium": 96**2, "large": np.inf}

Names = tuple[list[str], list[str]]


@dataclass(frozen=True)
class BoxRecord:
    """Boxes of one answer and of its truth, in the same units; ``size`` is a key of `SIZE_LIMITS` or None.

    What the answer offers as a box and is none counts as a box that matches nothing.
    """

    answer: BoxAnswer
    truth: tuple[Box, ...]
    size: str | None

    @property
    def offered(self) -> np.ndarray:
        """Horizontal boxes of the answer, [count, 4]; malformed ones have no area."""
        return np.concatenate([hbb(self.answer.boxes), np.zeros((self.answer.malformed, 4))])

    @property
    def wanted(self) -> np.ndarray:
        """Horizontal boxes of the truth, [n, 4]."""
        return hbb([box.coords for box in self.truth])


def size_group(truth: Sequence[Box], frame: Frame) -> str | None:
    """``small``, ``medium`` or ``large`` by the mean area of the true boxes, None without any.

    Limits are COCO's, 32² and 96² pixels, in an image of 448 x 448 (our definition).
    """
    if not truth:
        return None
    boxes = hbb([box.coords for box in truth])
    shares = np.prod(np.abs(boxes[:, 2:] - boxes[:, :2]) / np.array(frame.scale), axis=1)
    return next(name for name, limit in SIZE_LIMITS.items() if shares.mean() * SIDE**2 < limit)


def box_groups(records: Sequence[BoxRecord]) -> dict[str, np.ndarray]:
    """Members of each size and of ``single`` and ``multiple`` (one true box, or more), bool [n] each."""
    groups = {size: np.array([r.size == size for r in records]) for size in SIZE_LIMITS}
    many = np.array([len(r.truth) for r in records])
    return groups | {"single": many == 1, "multiple": many > 1}


def f1(records: Sequence[BoxRecord], threshold: float = 0.5) -> Statistic:
    """F1 of the greatest one-to-one matching at an IoU of at least ``threshold``, counts pooled over records."""
    rows = [
        (_matches(record, names, threshold), record.answer.count + len(record.truth))
        for record, names in zip(records, _names(records), strict=True)
    ]
    counted = np.array(rows, dtype=np.int64).reshape(-1, 2)

    def score(counts: np.ndarray) -> dict[str, float]:
        found, boxes = counts @ counted
        return {f"F1@{threshold:g}": float(2 * found / boxes)} if boxes else {}

    return score


def average_precision(records: Sequence[BoxRecord]) -> Statistic:
    """AP@0.5, AP@0.25 and AP@[.5:.95] as COCO defines them, computed by faster-coco-eval.

    Boxes are matched once; a resampled set of records is accumulated from those matches.
    """
    evaluator = _evaluator(records)
    evaluator.evaluate()
    matched = evaluator._evalImgs_cpp
    categories = range(len(evaluator.params.catIds))

    def score(counts: np.ndarray) -> dict[str, float]:
        drawn = np.repeat(np.arange(len(records)), counts)
        if not len(drawn):
            return {}
        evaluator._evalImgs_cpp = [matched[k * len(records) + i] for k in categories for i in drawn]
        evaluator._paramsEval.imgIds = list(range(len(drawn)))
        evaluator.accumulate()
        precision = evaluator.eval["precision"][:, :, :, 0, 0]
        true = precision[0, 0] > -1
        if not true.any():
            return {}
        loose, *strict = precision[:, :, true].mean(axis=(1, 2)).tolist()
        return {"AP@0.5": strict[0], "AP@0.25": loose, "AP@[.5:.95]": float(np.mean(strict))}

    return score


def _evaluator(records: Sequence[BoxRecord]) -> COCOeval_faster:
    """The records as COCO's images, one category for each name of a box."""
    names = _names(records)
    category = {name: i for i, name in enumerate(sorted({n for pair in names for side in pair for n in side}), 1)}
    truth: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for image, (record, (said, wanted)) in enumerate(zip(records, names, strict=True), 1):
        for box, name in zip(_corner_and_size(record.wanted), wanted, strict=True):
            place = {"id": len(truth) + 1, "image_id": image, "category_id": category[name]}
            truth.append({**place, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
        for box, name in zip(_corner_and_size(record.offered), said, strict=True):
            answers.append({"image_id": image, "category_id": category[name], "bbox": box, "score": 1.0})
    images = [{"id": image} for image in range(1, len(records) + 1)]
    categories = [{"id": number, "name": name} for name, number in category.items()]
    coco = COCO({"images": images, "annotations": truth, "categories": categories})
    evaluator = COCOeval_faster(coco, coco.loadRes(answers), "bbox", separate_eval=True)
    evaluator.params.iouThrs = np.array([LOOSE, *COCO_THRESHOLDS])
    evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0.0, np.inf]], ["all"]
    most = max((r.answer.count for r in records), default=0)
    evaluator.params.maxDets = [min(max(most, 1), MOST_BOXES)]
    return evaluator


def _corner_and_size(boxes: np.ndarray) -> list[list[float]]:
    """COCO's form of boxes; one with its corners the wrong way round gets no area, as COCO would pass it over."""
    return np.concatenate([boxes[:, :2], np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)], axis=1).tolist()


def _names(records: Sequence[BoxRecord]) -> list[Names]:
    """The names of each answer's boxes (malformed ones last) and of its truth's, all empty where names do not count."""
    if not (any(b.label for r in records for b in r.truth) and any(n for r in records for n in r.answer.labels)):
        return [([""] * r.answer.count, [""] * len(r.truth)) for r in records]
    return [
        (
            [*(label_key(n or "") for n in r.answer.labels), *[""] * r.answer.malformed],
            [label_key(b.label or "") for b in r.truth],
        )
        for r in records
    ]


def _matches(record: BoxRecord, names: Names, threshold: float) -> int:
    """Size of the greatest one-to-one matching between boxes of the same name."""
    said, wanted = (np.array(side, dtype=object) for side in names)
    hits = (iou_hbb(record.offered, record.wanted) >= threshold) & (said[:, None] == wanted[None, :])
    rows, columns = match(hits.astype(np.float64))
    return int(hits[rows, columns].sum())
