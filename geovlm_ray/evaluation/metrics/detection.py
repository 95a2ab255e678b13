"""COCO average precision and F1 of the horizontal envelopes of boxes.

Answers have no confidences. F1 does not need them and does not depend on box order. For AP, all boxes have the same
confidence and a fixed order: records in file order, boxes in answer order.

If the true boxes of a record have class names, only boxes of the same class match, and AP is the mean over the true
classes. A predicted box without a class has the one class of the record's true boxes; if they have several, it matches
none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from geovlm_ray.core.geometry import Frame, envelopes, hbb, iou_hbb, match
from geovlm_ray.core.schema import Box
from geovlm_ray.evaluation.metrics.bootstrap import Statistic
from geovlm_ray.tasks.answers.box_dialects import BoxAnswer
from geovlm_ray.tasks.answers.box_labels import class_key, is_generic
from geovlm_ray.tasks.answers.class_names import ClassNames
from geovlm_ray.tasks.answers.labels import label_key

AP_RESAMPLES = 200
LOW_THRESHOLD = 0.25
COCO_THRESHOLDS = np.linspace(0.5, 0.95, 10)
MAX_AP_BOXES = 1000
"""AP ignores further boxes of an answer; F1 counts all."""

SIDE = 448
SIZE_LIMITS = {"small": 32**2, "medium": 96**2, "large": np.inf}

Names = tuple[list[str], list[str]]


@dataclass(frozen=True)
class BoxRecord:
    """Predicted and true boxes of a record, in the same units; ``size`` is a key of `SIZE_LIMITS` or None.

    A malformed box of the answer counts as a box that matches nothing. ``classes`` are the class names of the record;
    without them, labels are compared as `label_key` normalizes them.
    """

    answer: BoxAnswer
    truth: tuple[Box, ...]
    size: str | None
    classes: ClassNames | None = None

    def class_of(self, label: str | None) -> str:
        """Key of the class that a label names, or of the label itself if it names none; empty without a label."""
        key = class_key(label, self.classes) if self.classes else None
        return key or label_key("" if label is None or (self.classes and is_generic(label)) else label)

    @property
    def predicted_hbb(self) -> np.ndarray:
        """Horizontal boxes of the answer, [count, 4]; malformed ones have zero area."""
        return np.concatenate([envelopes(self.answer.boxes), np.zeros((self.answer.malformed, 4))])

    @property
    def true_hbb(self) -> np.ndarray:
        """Horizontal true boxes, [n, 4]."""
        return envelopes([box.coords for box in self.truth])


def size_group(truth: Sequence[Box], frame: Frame) -> str | None:
    """``small``, ``medium`` or ``large`` by the mean area of the true boxes, None without boxes.

    Limits are COCO's 32² and 96² pixels, for the image scaled to 448 x 448 pixels (our definition).
    """
    if not truth:
        return None
    boxes = hbb([box.coords for box in truth])
    shares = np.prod(np.abs(boxes[:, 2:] - boxes[:, :2]) / np.array(frame.scale), axis=1)
    return next(name for name, limit in SIZE_LIMITS.items() if shares.mean() * SIDE**2 < limit)


def box_groups(records: Sequence[BoxRecord]) -> dict[str, np.ndarray]:
    """Masks of each size, and of ``single`` (one true box) and ``multiple`` (more), bool [n] each."""
    groups = {size: np.array([r.size == size for r in records]) for size in SIZE_LIMITS}
    box_counts = np.array([len(r.truth) for r in records])
    return groups | {"single": box_counts == 1, "multiple": box_counts > 1}


def f1(records: Sequence[BoxRecord], threshold: float = 0.5) -> Statistic:
    """F1 of the maximum one-to-one matching at IoU >= ``threshold``, with counts pooled over records."""
    rows = [(_matches(record, threshold), record.answer.count + len(record.truth)) for record in records]
    per_record = np.array(rows, dtype=np.int64).reshape(-1, 2)

    def score(counts: np.ndarray) -> dict[str, float]:
        matches, boxes = counts @ per_record
        return {f"F1@{threshold:g}": float(2 * matches / boxes)} if boxes else {}

    return score


def false_alarms(records: Sequence[BoxRecord]) -> Statistic:
    """Share of the records without a true box whose answer has one."""
    is_empty = np.array([not record.truth for record in records])
    is_alarm = np.array([not record.truth and record.answer.count > 0 for record in records])

    def score(counts: np.ndarray) -> dict[str, float]:
        empty = counts @ is_empty
        return {"false alarms": float(counts @ is_alarm / empty)} if empty else {}

    return score


def average_precision(records: Sequence[BoxRecord]) -> Statistic:
    """AP@0.5, AP@0.25 and AP@[.5:.95] as defined by COCO, computed by faster-coco-eval.

    Boxes are matched once; resamples only accumulate these matches.
    """
    evaluator = _evaluator(records)
    evaluator.evaluate()
    matched = evaluator._evalImgs_cpp
    categories = range(len(evaluator.params.catIds))

    def score(counts: np.ndarray) -> dict[str, float]:
        resample = np.repeat(np.arange(len(records)), counts)
        if not len(resample):
            return {}
        evaluator._evalImgs_cpp = [matched[k * len(records) + i] for k in categories for i in resample]
        evaluator._paramsEval.imgIds = list(range(len(resample)))
        evaluator.accumulate()
        precision = evaluator.eval["precision"][:, :, :, 0, 0]
        has_truth = precision[0, 0] > -1
        if not has_truth.any():
            return {}
        low, *coco = precision[:, :, has_truth].mean(axis=(1, 2)).tolist()
        return {"AP@0.5": coco[0], "AP@0.25": low, "AP@[.5:.95]": float(np.mean(coco))}

    return score


def _evaluator(records: Sequence[BoxRecord]) -> COCOeval_faster:
    """COCO evaluator with one image per record and one category per class name."""
    names = [_names(record) for record in records]
    true_classes = {name for _, true in names for name in true}
    # Without a true box, a label of no true class is one of the boxes without a class, so that it costs precision.
    names = [(p if t else [n if n in true_classes else "" for n in p], t) for p, t in names]
    category = {name: i for i, name in enumerate(sorted({n for pair in names for side in pair for n in side}), 1)}
    truth: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for image, (record, (predicted_names, true_names)) in enumerate(zip(records, names, strict=True), 1):
        for box, name in zip(_xywh(record.true_hbb), true_names, strict=True):
            ids = {"id": len(truth) + 1, "image_id": image, "category_id": category[name]}
            truth.append({**ids, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
        for box, name in zip(_xywh(record.predicted_hbb), predicted_names, strict=True):
            answers.append({"image_id": image, "category_id": category[name], "bbox": box, "score": 1.0})
    images = [{"id": image} for image in range(1, len(records) + 1)]
    categories = [{"id": number, "name": name} for name, number in category.items()]
    coco = COCO({"images": images, "annotations": truth, "categories": categories})
    evaluator = COCOeval_faster(coco, coco.loadRes(answers), "bbox", separate_eval=True)
    evaluator.params.iouThrs = np.array([LOW_THRESHOLD, *COCO_THRESHOLDS])
    evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0.0, np.inf]], ["all"]
    max_count = max((r.answer.count for r in records), default=0)
    evaluator.params.maxDets = [min(max(max_count, 1), MAX_AP_BOXES)]
    return evaluator


def _xywh(boxes: np.ndarray) -> list[list[float]]:
    """Boxes in COCO's (x, y, width, height); swapped corners give zero area, because COCO would skip such a box."""
    return np.concatenate([boxes[:, :2], np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)], axis=1).tolist()


def _names(record: BoxRecord) -> Names:
    """Class names of the predicted (malformed ones last) and the true boxes; empty for a box without a class."""
    true = [record.class_of(box.label) for box in record.truth]
    only = true[0] if len(set(true)) == 1 else ""
    predicted = [record.class_of(label) or only for label in record.answer.labels]
    if record.truth and not any(true):
        predicted = []
    return [*predicted, *[""] * (record.answer.count - len(predicted))], true


def _matches(record: BoxRecord, threshold: float) -> int:
    """Size of the maximum one-to-one matching between boxes of the same class."""
    predicted_names, true_names = (np.array(side, dtype=object) for side in _names(record))
    same_class = predicted_names[:, None] == true_names[None, :]
    hits = (iou_hbb(record.predicted_hbb, record.true_hbb) >= threshold) & same_class
    return int(hits[match(hits.astype(np.float64))].sum())
