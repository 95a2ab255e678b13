"""Classification rewards: recall (the paper's), F-beta (default), exact match."""

from __future__ import annotations

from collections.abc import Sequence

from geovlm_ray.core.schema import Example
from geovlm_ray.rewards.base import Embedder, RewardResult
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.tasks.labels import label_keys, parse_labels

MIN_VOCABULARY = 5
"""Vocabulary size from which an answer that lists every label scores 0."""


def recall(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """Recall of the target labels; can be hacked by listing every class."""
    results = []
    for predicted, truth, _ in map(_sets, answers, examples):
        hits = len(predicted & truth)
        value = hits / len(truth) if truth else float(not predicted)
        results.append(RewardResult(value, {"recall": value}))
    return results


def fbeta(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """F-beta of the label sets; 0 if the answer lists the whole vocabulary (of `MIN_VOCABULARY` or more) wrongly."""
    results = []
    weight = config.beta**2
    for predicted, truth, vocabulary in map(_sets, answers, examples):
        hits = len(predicted & truth)
        precision = hits / len(predicted) if predicted else float(not truth)
        recalled = hits / len(truth) if truth else float(not predicted)
        value = (1 + weight) * hits / (weight * len(truth) + len(predicted)) if truth or predicted else 1.0
        if len(vocabulary) >= MIN_VOCABULARY and predicted >= vocabulary and not truth >= vocabulary:
            value = 0.0
        results.append(RewardResult(value, {"precision": precision, "recall": recalled}))
    return results


def accuracy(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """1 if the normalized label sets are equal, else 0."""
    pairs = map(_sets, answers, examples)
    return [
        RewardResult(float(predicted == truth), {"exact": float(predicted == truth)}) for predicted, truth, _ in pairs
    ]


def _sets(answer: str, example: Example) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Label keys of the answer, the target and the dataset vocabulary."""
    target = tuple(map(str, example.target))  # type: ignore[arg-type]
    predicted = frozenset(parse_labels(answer, target, example.labels))
    return predicted, frozenset(label_keys(target)), frozenset(label_keys(example.labels))
