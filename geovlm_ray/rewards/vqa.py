"""VQA rewards: Jaccard similarity of the words."""

from __future__ import annotations

import re
from collections import Counter

from geovlm_ray.core.schema import Example
from geovlm_ray.rewards.base import RewardResult
from geovlm_ray.rewards.config import RewardConfig

_TOKEN = re.compile(r"\d+(?:\.\d+)?|[^\W\d]+")


def jaccard(answer: str, example: Example, config: RewardConfig) -> RewardResult:
    """Jaccard similarity of the word sets (the paper's); repeated words have no penalty."""
    truth = str(example.target)
    return _score(Counter(set(_words(answer))), Counter(set(_words(truth))), answer.strip() == truth.strip())


def jaccard_counts(answer: str, example: Example, config: RewardConfig) -> RewardResult:
    """Jaccard similarity of the word multisets, which penalizes repeated words."""
    truth = str(example.target)
    return _score(Counter(_words(answer)), Counter(_words(truth)), answer.strip() == truth.strip())


def _words(text: str) -> list[str]:
    return _TOKEN.findall(text.casefold())


def _score(answer: Counter[str], truth: Counter[str], same_text: bool) -> RewardResult:
    """Intersection over union; of two texts without words, whether they are equal."""
    union = (answer | truth).total()
    value = (answer & truth).total() / union if union else float(same_text)
    return RewardResult(value, {"jaccard": value})
