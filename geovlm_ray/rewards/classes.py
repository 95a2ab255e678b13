"""Classification rewards: F-beta and exact match of tolerantly read class names (default), the paper's forms."""

from __future__ import annotations

from geovlm_ray.core.schema import Example, target_texts
from geovlm_ray.rewards.base import RewardResult
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.tasks.answers.class_answers import class_reader
from geovlm_ray.tasks.answers.labels import label_keys, parse_labels

MIN_VOCABULARY = 5
"""Vocabulary size from which an answer that lists every label scores 0."""


def recall(answer: str, example: Example, config: RewardConfig) -> RewardResult:
    """Recall of the target labels; can be hacked by listing every class."""
    predicted, truth = _sets(answer, example)
    value = len(predicted & truth) / len(truth) if truth else float(not predicted)
    return RewardResult(value, {"recall": value})


def fbeta(answer: str, example: Example, config: RewardConfig) -> RewardResult:
    """F-beta of the label sets; 0 if the answer lists the whole vocabulary (of `MIN_VOCABULARY` or more) wrongly."""
    reader = class_reader(example, config.class_synonyms)
    predicted, truth, vocabulary = set(reader.keys(answer)), reader.truth, reader.labels
    weight, hits = config.beta**2, len(predicted & truth)
    precision = hits / len(predicted) if predicted else float(not truth)
    recalled = hits / len(truth) if truth else float(not predicted)
    value = (1 + weight) * hits / (weight * len(truth) + len(predicted)) if truth or predicted else 1.0
    if len(vocabulary) >= MIN_VOCABULARY and predicted >= vocabulary and not truth >= vocabulary:
        value = 0.0
    value = min(value, 1.0)
    return RewardResult(value, {"precision": precision, "recall": recalled})


def exact_match(answer: str, example: Example, config: RewardConfig) -> RewardResult:
    """1 if the answer names the target's classes and no other, else 0."""
    reader = class_reader(example, config.class_synonyms)
    value = float(set(reader.keys(answer)) == reader.truth)
    return RewardResult(value, {"exact": value})


def accuracy(answer: str, example: Example, config: RewardConfig) -> RewardResult:
    """1 if the label sets, read strictly, are equal, else 0 (the paper's)."""
    predicted, truth = _sets(answer, example)
    return RewardResult(float(predicted == truth), {"exact": float(predicted == truth)})


def _sets(answer: str, example: Example) -> tuple[set[str], set[str]]:
    """Label keys of the answer, read strictly, and of the target."""
    target = target_texts(example.target)
    return set(parse_labels(answer, target, example.labels)), set(label_keys(target))
