"""Rewards of boxes, for object detection, referred objects and grounding alike.

Where the truth gives its boxes a label, boxes match only under the same label. The dialect ``brackets`` has no
place for labels: there, an answer without any is judged by its boxes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from geovlm_ray.core.geometry import iou_matrix, match
from geovlm_ray.core.schema import Box, Example, GroundedText
from geovlm_ray.rewards.base import Embedder, RewardResult
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.tasks.boxes import BoxAnswer, parse_boxes
from geovlm_ray.tasks.labels import label_key

Measure = Callable[[np.ndarray, int, RewardConfig], RewardResult]


def _judge_all(
    measure: Measure, answers: Sequence[str], examples: Sequence[Example], config: RewardConfig
) -> list[RewardResult]:
    return [judge_boxes(measure, a, e, config) for a, e in zip(answers, examples, strict=True)]


def matched_iou(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """Sum of the IoUs of a one-to-one matching over the greater count of boxes: the default."""
    return _judge_all(_matched, answers, examples, config)


def f1(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """F1 of a one-to-one matching at IoU tau."""
    return _judge_all(_f1, answers, examples, config)


def best_iou(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """Mean over the truth of the best IoU of any predicted box; a grid of boxes games it."""
    return _judge_all(_best, answers, examples, config)


def precision(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """Share of predicted boxes that meet any true one at IoU tau: the published metric's form, without recall."""
    return _judge_all(_precision, answers, examples, config)


def judge_boxes(measure: Measure, answer: str, example: Example, config: RewardConfig) -> RewardResult:
    """One answer against its truth by one measure."""
    target = example.target
    truth = target.boxes if isinstance(target, GroundedText) else target
    assert isinstance(truth, tuple)
    boxes = [b for b in truth if isinstance(b, Box)]
    names = [b.label for b in boxes if b.label]
    vocabulary = (*names, *example.labels) if names else ()
    found = parse_boxes(answer, example.dialect, vocabulary)
    if found is None:
        return RewardResult(0.0, status="unparseable")
    if not boxes:
        return RewardResult(float(found.count == 0), {"boxes": float(found.count)})
    return measure(_similarity(found, boxes, example, config), found.count, config)


def _similarity(found: BoxAnswer, truth: Sequence[Box], example: Example, config: RewardConfig) -> np.ndarray:
    """IoU of predicted and true boxes, [n_pred, n_gt]; 0 where the labels differ."""
    iou = iou_matrix(found.boxes, [b.coords for b in truth], config.rotated)
    if config.min_iou > 0:
        iou = np.where(iou >= config.min_iou, iou, 0.0)
    if not any(b.label for b in truth) or (example.dialect == "brackets" and not any(found.labels)):
        return iou
    named = np.array([label_key(n or "") for n in found.labels], dtype=object)
    wanted = np.array([label_key(b.label or "") for b in truth], dtype=object)
    return np.where((named[:, None] == wanted[None, :]) | (wanted == "")[None, :], iou, 0.0)


def _matched(iou: np.ndarray, predicted: int, config: RewardConfig) -> RewardResult:
    rows, columns = match(iou)
    total = float(iou[rows, columns].sum())
    truth = iou.shape[1]
    parts = {"matched_iou": total / min(predicted, truth) if predicted else 0.0, "count": _count(predicted, truth)}
    return RewardResult(min(total / max(predicted, truth), 1.0), parts)


def _f1(iou: np.ndarray, predicted: int, config: RewardConfig) -> RewardResult:
    hits = iou >= config.tau
    rows, columns = match(hits.astype(np.float64))
    found = int(hits[rows, columns].sum())
    truth = iou.shape[1]
    parts = {"precision": found / predicted if predicted else 0.0, "recall": found / truth}
    return RewardResult(2 * found / (predicted + truth), parts)


def _best(iou: np.ndarray, predicted: int, config: RewardConfig) -> RewardResult:
    value = float(iou.max(axis=0).mean()) if len(iou) else 0.0
    return RewardResult(value, {"best_iou": value})


def _precision(iou: np.ndarray, predicted: int, config: RewardConfig) -> RewardResult:
    value = float((iou.max(axis=1) >= config.tau).sum()) / predicted if len(iou) else 0.0
    return RewardResult(value, {"precision": value})


def _count(predicted: int, truth: int) -> float:
    return min(predicted, truth) / max(predicted, truth)
