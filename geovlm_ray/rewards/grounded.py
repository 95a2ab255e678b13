"""Rewards of grounded descriptions: text and boxes."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from geovlm_ray.core.schema import Example, target_texts
from geovlm_ray.rewards.base import Embedder, RewardFn, RewardResult
from geovlm_ray.rewards.captions import hybrid, with_gates
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.detection import best_iou, box_reward, matched_iou, published_box_reward
from geovlm_ray.tasks.answers.box_dialects import strip_boxes
from geovlm_ray.tasks.answers.box_reader import without_boxes


def grounded_reward(*, robust: bool) -> RewardFn:
    """Reward function of text and boxes.

    Robust: the product of the gated text score and the matched IoU, so that neither can be omitted. Otherwise, the mean
    of text score and best IoU (the paper names both components but not how they are combined).
    """
    score_boxes = box_reward(matched_iou) if robust else published_box_reward(best_iou)
    text_of = without_boxes if robust else strip_boxes
    # The samples of a group share their reference.
    reference_text = functools.lru_cache(maxsize=1024)(text_of)

    def score(
        answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
    ) -> list[RewardResult]:
        references = [target_texts(example.target)[0] for example in examples]
        pairs, boxes = [], []
        for answer, reference, example in zip(answers, references, examples, strict=True):
            pairs.append((text_of(answer), reference_text(reference)))
            boxes += score_boxes([answer], [example], config, embedder)
        texts, _ = hybrid(pairs, config.grounded, embedder, 0.0, robust=robust)
        if robust:
            texts, _ = with_gates(texts, pairs, config)
        results = []
        for text, box in zip(texts.tolist(), boxes, strict=True):
            value = min(text * box.accuracy, 1.0) if robust else (text + box.accuracy) / 2
            results.append(RewardResult(value, {"text": text, "boxes": box.accuracy}, box.status))
        return results

    return score
