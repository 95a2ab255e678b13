"""Rewards of grounded descriptions: text and boxes."""

from __future__ import annotations

from collections.abc import Sequence

from geovlm_ray.core.schema import Example, target_texts
from geovlm_ray.rewards.base import Embedder, RewardFn, RewardResult
from geovlm_ray.rewards.captions import hybrid, with_gates
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.detection import best_iou, box_reward, matched_iou
from geovlm_ray.tasks.boxes import strip_boxes


def grounded_reward(*, robust: bool) -> RewardFn:
    """Reward function of text and boxes.

    Robust: the product of the gated text score and the matched IoU, so that neither can be omitted. Otherwise, the mean
    of text score and best IoU (the paper names both components but not how they are combined).
    """
    score_boxes = box_reward(matched_iou if robust else best_iou)

    def score(
        answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
    ) -> list[RewardResult]:
        references = [target_texts(example.target)[0] for example in examples]
        pairs = [(strip_boxes(a), strip_boxes(r)) for a, r in zip(answers, references, strict=True)]
        texts, _ = hybrid(pairs, config.grounded, embedder, 0.0, robust=robust)
        if robust:
            texts, _ = with_gates(texts, pairs, config)
        results = []
        for text, boxes in zip(texts.tolist(), score_boxes(answers, examples, config, embedder), strict=True):
            value = text * boxes.accuracy if robust else (text + boxes.accuracy) / 2
            results.append(RewardResult(value, {"text": text, "boxes": boxes.accuracy}, boxes.status))
        return results

    return score
