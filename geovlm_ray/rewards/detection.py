"""Box rewards for object detection, referred object detection and visual grounding.

If the target boxes are labelled, boxes match only with equal labels. Labels are optional in the ``brackets`` dialect:
an answer without any label is scored by its boxes alone.
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


def _score_all(
    measure: Measure, answers: Sequence[str], examples: Sequence[Example], config: RewardConfig
) -> list[RewardResult]:
    return [score_boxes(measure, a, e, config) for a, e in zip(answers, examples, strict=True)]


def matched_iou(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """Total IoU of the optimal one-to-one matching divided by max(predicted, target) boxes; the default reward."""
    return _score_all(_matched, answers, examples, config)


def f1(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """F1 of the one-to-one matching at IoU ``config.tau``."""
    return _score_all(_f1, answers, examples, config)


def best_iou(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """Mean over the target boxes of the best IoU with any predicted box; can be hacked with a grid of boxes."""
    return _score_all(_best, answers, examples, config)


def precision(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """Fraction of predicted boxes with IoU >= ``config.tau`` to any target box (the published metric); no recall."""
    return _score_all(_precision, answers, examples, config)


def score_boxes(measure: Measure, answer: str, example: Example, config: RewardConfig) -> RewardResult:
    """Score one answer against its target boxes with ``measure``."""
    target = example.target
    truth = target.boxes if isinstance(target, GroundedText) else target
    assert isinstance(truth, tuple)
    boxes = [b for b in truth if isinstance(b, Box)]
    names = [b.label for b in boxes if b.label]
    vocabulary = (*names, *example.labels) if names else ()
    parsed = parse_boxes(answer, example.dialect, vocabulary)
    if parsed is None:
        return RewardResult(0.0, status="unparseable")
    if not boxes:
        return RewardResult(float(parsed.count == 0), {"boxes": float(parsed.count)})
    return measure(_pairwise_iou(parsed, boxes, example, config), parsed.count, config)


def _pairwise_iou(answer: BoxAnswer, truth: Sequence[Box], example: Example, config: RewardConfig) -> np.ndarray:
    """IoU of predicted and target boxes, [n_pred, n_gt]; 0 if their labels differ."""
    iou = iou_matrix(answer.boxes, [b.coords for b in truth], config.rotated)
    if config.min_iou > 0:
        iou = np.where(iou >= config.min_iou, iou, 0.0)
    if not any(b.label for b in truth) or (example.dialect == "brackets" and not any(answer.labels)):
        return iou
    predicted = np.array([label_key(n or "") for n in answer.labels], dtype=object)
    expected = np.array([label_key(b.label or "") for b in truth], dtype=object)
    return np.where((predicted[:, None] == expected[None, :]) | (expected == "")[None, :], iou, 0.0)


def _matched(iou: np.ndarray, predicted: int, config: RewardConfig) -> RewardResult:
    rows, columns = match(iou)
    total = float(iou[rows, columns].sum())
    truth = iou.shape[1]
    parts = {
        "matched_iou": total / min(predicted, truth) if predicted else 0.0,
        "count": _count_ratio(predicted, truth),
    }
    return RewardResult(min(total / max(predicted, truth), 1.0), parts)


def _f1(iou: np.ndarray, predicted: int, config: RewardConfig) -> RewardResult:
    hits = iou >= config.tau
    rows, columns = match(hits.astype(np.float64))
    matched = int(hits[rows, columns].sum())
    truth = iou.shape[1]
    parts = {"precision": matched / predicted if predicted else 0.0, "recall": matched / truth}
    return RewardResult(2 * matched / (predicted + truth), parts)


def _best(iou: np.ndarray, predicted: int, config: RewardConfig) -> RewardResult:
    value = float(iou.max(axis=0).mean()) if len(iou) else 0.0
    return RewardResult(value, {"best_iou": value})


def _precision(iou: np.ndarray, predicted: int, config: RewardConfig) -> RewardResult:
    value = float((iou.max(axis=1) >= config.tau).sum()) / predicted if len(iou) else 0.0
    return RewardResult(value, {"precision": value})


def _count_ratio(predicted: int, truth: int) -> float:
    return min(predicted, truth) / max(predicted, truth)
