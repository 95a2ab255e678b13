"""Box rewards for object detection, referred object detection and visual grounding.

If the target boxes are labelled, boxes match only with equal labels. Labels are optional in the ``brackets`` dialect:
an answer without any label is scored by its boxes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from geovlm_ray.core.geometry import iou_matrix, match
from geovlm_ray.core.schema import Box, Example, target_boxes
from geovlm_ray.rewards.base import RewardFn, RewardResult, per_answer
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.tasks.boxes import BoxAnswer, parse_boxes
from geovlm_ray.tasks.labels import label_key

Measure = Callable[[np.ndarray, int, RewardConfig], RewardResult]
"""Scores the IoU of valid predicted and target boxes, [n_pred, n_gt], and the number of all predicted boxes."""


def box_reward(measure: Measure) -> RewardFn:
    """Reward function: ``measure`` of each answer's boxes."""

    def score(answer: str, example: Example, config: RewardConfig) -> RewardResult:
        truth = target_boxes(example.target)
        names = [b.label for b in truth if b.label]
        parsed = parse_boxes(answer, example.dialect, (*names, *example.labels) if names else ())
        if parsed is None:
            return RewardResult(0.0, status="unparseable")
        if not truth:
            return RewardResult(float(parsed.count == 0), {"boxes": float(parsed.count)})
        return measure(_pairwise_iou(parsed, truth, example, config), parsed.count, config)

    return per_answer(score)


def matched_iou(iou: np.ndarray, predicted: int, config: RewardConfig) -> RewardResult:
    """Total IoU of the optimal one-to-one matching divided by max(predicted, target) boxes; the default reward."""
    total = float(iou[match(iou)].sum())
    fewer, more = sorted((predicted, iou.shape[1]))
    parts = {"matched_iou": total / fewer if fewer else 0.0, "count": fewer / more}
    return RewardResult(min(total / more, 1.0), parts)


def f1(iou: np.ndarray, predicted: int, config: RewardConfig) -> RewardResult:
    """F1 of the one-to-one matching at IoU ``config.tau``."""
    hits = iou >= config.tau
    matched, truth = int(hits[match(hits.astype(np.float64))].sum()), iou.shape[1]
    parts = {"precision": matched / predicted if predicted else 0.0, "recall": matched / truth}
    return RewardResult(2 * matched / (predicted + truth), parts)


def best_iou(iou: np.ndarray, predicted: int, config: RewardConfig) -> RewardResult:
    """Mean over the target boxes of the best IoU with any predicted box; can be hacked with a grid of boxes."""
    value = float(iou.max(axis=0).mean()) if len(iou) else 0.0
    return RewardResult(value, {"best_iou": value})


def precision(iou: np.ndarray, predicted: int, config: RewardConfig) -> RewardResult:
    """Fraction of predicted boxes with IoU >= ``config.tau`` to any target box (the published metric); no recall."""
    value = float((iou.max(axis=1) >= config.tau).sum()) / predicted if len(iou) else 0.0
    return RewardResult(value, {"precision": value})


def _pairwise_iou(answer: BoxAnswer, truth: Sequence[Box], example: Example, config: RewardConfig) -> np.ndarray:
    """IoU of predicted and target boxes, [n_pred, n_gt]; 0 if their labels differ."""
    iou = iou_matrix(answer.boxes, [b.coords for b in truth], config.rotated)
    iou = np.where(iou >= config.min_iou, iou, 0.0)
    if not any(b.label for b in truth) or (example.dialect == "brackets" and not any(answer.labels)):
        return iou
    predicted = np.array([label_key(n or "") for n in answer.labels], dtype=object)
    expected = np.array([label_key(b.label or "") for b in truth], dtype=object)
    return np.where((predicted[:, None] == expected[None, :]) | (expected == "")[None, :], iou, 0.0)
