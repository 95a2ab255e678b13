"""Box rewards for object detection, referred object detection and visual grounding.

The default forms read an answer in any notation (`geovlm_ray.tasks.answers.box_reader`) and weight each pair of boxes
by `label_credit`. The published forms read the record's dialect only, ignore angles by default, and match labels
strictly, except that an answer without any label in the ``brackets`` dialect is scored by its boxes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from geovlm_ray.core.geometry import envelopes, hbb, iou_hbb, iou_matrix, match
from geovlm_ray.core.schema import Box, Example, keeps_angles, target_boxes
from geovlm_ray.rewards.base import RewardFn, RewardResult, per_answer
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.label_credit import label_credit
from geovlm_ray.tasks.answers.box_dialects import BoxAnswer, parse_boxes
from geovlm_ray.tasks.answers.box_labels import box_classes
from geovlm_ray.tasks.answers.box_reader import read_boxes
from geovlm_ray.tasks.answers.labels import label_key

Measure = Callable[[np.ndarray, np.ndarray, int, RewardConfig], RewardResult]
"""Scores the IoU of valid predicted and target boxes and the credit of their labels, [n_pred, n_gt] each, and the
number of all predicted boxes."""


def box_reward(measure: Measure) -> RewardFn:
    """Reward function: ``measure`` of the boxes that an answer states in any notation."""

    def score(answer: str, example: Example, config: RewardConfig) -> RewardResult:
        truth = target_boxes(example.target)
        names = box_classes(example, config.class_synonyms)
        read = read_boxes(answer, example.dialect, names, example.frame, example.question)
        if read is None or not truth:
            return _without_truth(read)
        iou = _iou(read, truth, keeps_angles(config.rotated, example.target), config)
        credit = np.ones(iou.shape) if names is None else label_credit(read.labels, example, names)
        return measure(iou, credit, read.count, config)

    return per_answer(score)


def published_box_reward(measure: Measure) -> RewardFn:
    """Reward function: ``measure`` of the boxes in the record's dialect, with angles only if ``config.rotated``."""

    def score(answer: str, example: Example, config: RewardConfig) -> RewardResult:
        truth = target_boxes(example.target)
        names = [b.label for b in truth if b.label]
        parsed = parse_boxes(answer, example.dialect, (*names, *example.labels) if names else ())
        if parsed is None or not truth:
            return _without_truth(parsed)
        if config.rotated == "auto":
            iou = _at_least(iou_hbb(hbb(parsed.boxes), hbb([b.coords for b in truth])), config)
        else:
            iou = _iou(parsed, truth, config.rotated, config)
        return measure(iou, _equal_labels(parsed, truth, example.dialect), parsed.count, config)

    return per_answer(score)


def matched_iou(iou: np.ndarray, credit: np.ndarray, predicted: int, config: RewardConfig) -> RewardResult:
    """Total IoU of the optimal one-to-one matching divided by max(predicted, target) boxes; the default reward."""
    value = iou * credit
    total = float(value[match(value)].sum())
    fewer, more = sorted((predicted, iou.shape[1]))
    parts = {"matched_iou": min(total / fewer, 1.0) if fewer else 0.0, "count": fewer / more}
    return RewardResult(min(total / more, 1.0), parts)


def f1(iou: np.ndarray, credit: np.ndarray, predicted: int, config: RewardConfig) -> RewardResult:
    """F1 of the one-to-one matching at IoU ``config.tau``; a match counts as much as the credit of its label."""
    hits = (iou >= config.tau) * credit
    matched, truth = float(hits[match(hits)].sum()), iou.shape[1]
    parts = {"precision": matched / predicted if predicted else 0.0, "recall": matched / truth}
    return RewardResult(2 * matched / (predicted + truth), parts)


def best_iou(iou: np.ndarray, credit: np.ndarray, predicted: int, config: RewardConfig) -> RewardResult:
    """Mean over the target boxes of the best IoU with any predicted box; can be hacked with a grid of boxes."""
    value = float((iou * credit).max(axis=0).mean()) if len(iou) else 0.0
    return RewardResult(value, {"best_iou": value})


def precision(iou: np.ndarray, credit: np.ndarray, predicted: int, config: RewardConfig) -> RewardResult:
    """Fraction of predicted boxes with IoU >= ``config.tau`` to any target box (the published metric); no recall."""
    value = float(((iou * credit).max(axis=1) >= config.tau).sum()) / predicted if len(iou) else 0.0
    return RewardResult(value, {"precision": value})


def _without_truth(answer: BoxAnswer | None) -> RewardResult:
    """Result of an unreadable answer, or of any answer to a record without boxes."""
    if answer is None:
        return RewardResult(0.0, status="unparseable")
    return RewardResult(float(answer.count == 0), {"boxes": float(answer.count)})


def _iou(answer: BoxAnswer, truth: Sequence[Box], rotated: bool, config: RewardConfig) -> np.ndarray:
    """IoU of predicted and target boxes, [n_pred, n_gt]: of polygons, or of the horizontal envelopes."""
    true = [b.coords for b in truth]
    iou = iou_matrix(answer.boxes, true, True) if rotated else iou_hbb(envelopes(answer.boxes), envelopes(true))
    return _at_least(iou, config)


def _at_least(iou: np.ndarray, config: RewardConfig) -> np.ndarray:
    return np.where(iou >= config.min_iou, iou, 0.0)


def _equal_labels(answer: BoxAnswer, truth: Sequence[Box], dialect: str) -> np.ndarray:
    """1 for each pair whose labels are equal or whose true label is absent, else 0; [n_pred, n_gt]."""
    if not any(b.label for b in truth) or (dialect == "brackets" and not any(answer.labels)):
        return np.ones((len(answer.boxes), len(truth)))
    predicted = np.array([label_key(n or "") for n in answer.labels], dtype=object)
    expected = np.array([label_key(b.label or "") for b in truth], dtype=object)
    return ((predicted[:, None] == expected[None, :]) | (expected == "")[None, :]).astype(np.float64)
