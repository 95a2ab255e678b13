"""Rewards of class answers: recall (the paper's), F-beta (ours), exact accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from geovlm_ray.core.schema import Example
from geovlm_ray.rewards.base import Embedder, RewardResult
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.tasks.labels import label_keys, parse_labels

LISTED = 5
"""Naming a whole vocabulary of at least this many labels is no answer."""


def recall(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """Share of the true labels that the answer names; naming every class earns 1."""
    judged = []
    for predicted, truth, _ in map(_sets, answers, examples):
        hits = len(predicted & truth)
        value = hits / len(truth) if truth else float(not predicted)
        judged.append(RewardResult(value, {"recall": value}))
    return judged


def fbeta(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """F-beta of the label sets; 0 where the answer names a whole vocabulary of `LISTED` or more that is not true."""
    judged = []
    weight = config.beta**2
    for predicted, truth, vocabulary in map(_sets, answers, examples):
        hits = len(predicted & truth)
        precision = hits / len(predicted) if predicted else float(not truth)
        found = hits / len(truth) if truth else float(not predicted)
        value = (1 + weight) * hits / (weight * len(truth) + len(predicted)) if truth or predicted else 1.0
        if len(vocabulary) >= LISTED and predicted >= vocabulary and not truth >= vocabulary:
            value = 0.0
        judged.append(RewardResult(value, {"precision": precision, "recall": found}))
    return judged


def accuracy(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """1 where the answer names exactly the true labels, after normalisation, else 0."""
    pairs = map(_sets, answers, examples)
    return [
        RewardResult(float(predicted == truth), {"exact": float(predicted == truth)}) for predicted, truth, _ in pairs
    ]


def _sets(answer: str, example: Example) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Label keys of the answer, of the truth and of the dataset."""
    target = tuple(map(str, example.target))  # type: ignore[arg-type]
    predicted = frozenset(parse_labels(answer, target, example.labels))
    return predicted, frozenset(label_keys(target)), frozenset(label_keys(example.labels))
