"""VQA rewards: Jaccard similarity of the words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from geovlm_ray.core.schema import Example
from geovlm_ray.rewards.base import Embedder, RewardResult
from geovlm_ray.rewards.config import RewardConfig

_TOKEN = re.compile(r"\d+(?:\.\d+)?|[^\W\d]+")


def jaccard(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """Jaccard similarity of the word sets (the paper's); repeated words have no penalty."""
    return [
        _score(Counter(set(_words(a))), Counter(set(_words(str(e.target)))), a, e) for a, e in _zip(answers, examples)
    ]


def jaccard_counts(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """Jaccard similarity of the word multisets, which penalizes repeated words."""
    return [_score(Counter(_words(a)), Counter(_words(str(e.target))), a, e) for a, e in _zip(answers, examples)]


def _zip(answers: Sequence[str], examples: Sequence[Example]) -> zip[tuple[str, Example]]:
    return zip(answers, examples, strict=True)


def _words(text: str) -> list[str]:
    return _TOKEN.findall(text.casefold())


def _score(answer: Counter[str], truth: Counter[str], text: str, example: Example) -> RewardResult:
    union = (answer | truth).total()
    value = (answer & truth).total() / union if union else float(text.strip() == str(example.target).strip())
    return RewardResult(value, {"jaccard": value})
