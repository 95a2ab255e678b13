"""Rewards of grounded descriptions: text and boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geovlm_ray.core.schema import Example, GroundedText
from geovlm_ray.rewards.base import Embedder, RewardResult
from geovlm_ray.rewards.captions import gates, hybrid
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.detection import best_iou, matched_iou
from geovlm_ray.tasks.boxes import strip_boxes


def grounded_description(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """Mean of text and box score (the paper names both components but not how they are combined)."""
    text, _ = _text_scores(answers, examples, config, embedder)
    boxes = best_iou(answers, examples, config, embedder)
    return [_result((t + b.accuracy) / 2, t, b) for t, b in zip(text, boxes, strict=True)]


def grounded_description_robust(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """Product of the gated text score and the matched-IoU box score, so that neither can be omitted."""
    value, pairs = _text_scores(answers, examples, config, embedder)
    factors = gates(pairs, config)
    text = value * factors["length"] * factors["facts"]
    boxes = matched_iou(answers, examples, config, embedder)
    return [_result(t * b.accuracy, t, b) for t, b in zip(text, boxes, strict=True)]


def grounded_embeds(config: RewardConfig) -> bool:
    """Whether the text score needs sentence embeddings under a configuration."""
    return config.grounded.sbert > 0


def _text_scores(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> tuple[np.ndarray, list[tuple[str, str]]]:
    pairs = []
    for answer, example in zip(answers, examples, strict=True):
        assert isinstance(example.target, GroundedText)
        pairs.append((strip_boxes(answer), strip_boxes(example.target.text)))
    return hybrid(pairs, config.grounded, embedder, 0.0)[0], pairs


def _result(value: float, text: float, boxes: RewardResult) -> RewardResult:
    return RewardResult(float(value), {"text": float(text), "boxes": boxes.accuracy}, boxes.status)
