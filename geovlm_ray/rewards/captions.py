"""Rewards of captions: sentence embeddings, edit distance, and the hybrid of both worlds (HSLR).

A caption has one reference or several; the best one counts. The robust forms multiply the similarity by two
gates: one for length and repetition, one for the facts.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

from geovlm_ray.metrics.lexical import meteor, rouge_f
from geovlm_ray.rewards.base import Embedder, Judged
from geovlm_ray.rewards.config import RewardConfig, TextWeights
from geovlm_ray.rewards.facts import agreement
from geovlm_ray.schema import Example

LONGER = 1.6
"""Answers of up to this many times the reference's words lose nothing by their length."""

Pairs = list[tuple[str, str]]
Parts = dict[str, np.ndarray]
Similarity = Callable[[Pairs, RewardConfig, Embedder | None], tuple[np.ndarray, Parts]]
_WORD = re.compile(r"\w+")


def sbert(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[Judged]:
    """Cosine of sentence embeddings, clipped to [0, 1] (the paper's)."""
    return _judge(answers, examples, config, embedder, _sbert, gated=False)


def sbert_robust(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[Judged]:
    """Cosine of sentence embeddings with its floor mapped to 0, gated by length and facts."""
    return _judge(answers, examples, config, embedder, _sbert_above_floor, gated=True)


def levenshtein(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[Judged]:
    """Levenshtein similarity 1 - d / max(len), case-folded (the paper's)."""
    return _judge(answers, examples, config, embedder, _levenshtein, gated=False)


def levenshtein_robust(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[Judged]:
    """Levenshtein similarity, gated by length and facts."""
    return _judge(answers, examples, config, embedder, _levenshtein, gated=True)


def hslr(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[Judged]:
    """Weighted mean of SBERT, ROUGE-1, ROUGE-L and METEOR (the paper's; the weights are our definition)."""
    return _judge(answers, examples, config, embedder, _hslr, gated=False)


def hslr_robust(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[Judged]:
    """The hybrid with SBERT above its floor, gated by length and facts."""
    return _judge(answers, examples, config, embedder, _hslr_above_floor, gated=True)


def hslr_embeds(config: RewardConfig) -> bool:
    """Whether the hybrid embeds sentences under a configuration."""
    return config.hslr.sbert > 0


def best_of_references(values: np.ndarray, owners: Sequence[int], n: int) -> list[int]:
    """Index of each answer's best pair; ``owners`` says which of n answers a pair belongs to."""
    best = [-1] * n
    for i, owner in enumerate(owners):
        if best[owner] < 0 or values[i] > values[best[owner]]:
            best[owner] = i
    return best


def gates(pairs: Pairs, config: RewardConfig) -> Parts:
    """Factors in [0, 1] of each pair: ``length`` (with repetition) and ``facts``."""
    length = np.array([_length_gate(_WORD.findall(a.casefold()), _WORD.findall(r.casefold())) for a, r in pairs])
    facts = np.array([agreement(a, r) for a, r in pairs])
    return {"length": length, "facts": 1 - config.fact_weight * (1 - facts)}


def hybrid(pairs: Pairs, weights: TextWeights, embedder: Embedder | None, floor: float) -> tuple[np.ndarray, Parts]:
    """Weighted mean of the text metrics whose weight is not 0, and each of them."""
    parts: Parts = {}
    if weights.sbert > 0:
        parts["sbert"] = _above(_cosine(pairs, embedder), floor)
    if weights.rouge1 > 0:
        parts["rouge1"] = rouge_f(pairs, "rouge1")
    if weights.rougeL > 0:
        parts["rougeL"] = rouge_f(pairs, "rougeL")
    if weights.meteor > 0:
        parts["meteor"] = _identical_is_one(meteor(pairs), pairs)
    total = sum(getattr(weights, name) for name in parts)
    value = np.sum([getattr(weights, name) / total * part for name, part in parts.items()], axis=0)
    return value, parts


def _judge(
    answers: Sequence[str],
    examples: Sequence[Example],
    config: RewardConfig,
    embedder: Embedder | None,
    similarity: Similarity,
    gated: bool,
) -> list[Judged]:
    references = [tuple(map(str, e.target)) for e in examples]  # type: ignore[arg-type]
    pairs = [(a.strip(), r.strip()) for a, rs in zip(answers, references, strict=True) for r in rs]
    owners = [i for i, rs in enumerate(references) for _ in rs]
    values, parts = similarity(pairs, config, embedder)
    if gated:
        factors = gates(pairs, config)
        values = values * factors["length"] * factors["facts"]
        parts = {**parts, **factors}
    judged = []
    for i, answer in zip(best_of_references(values, owners, len(answers)), answers, strict=True):
        if i < 0 or not answer.strip():
            judged.append(Judged(0.0, status="unparseable"))
            continue
        accuracy = float(np.clip(values[i], 0.0, 1.0))
        judged.append(Judged(accuracy, {name: float(part[i]) for name, part in parts.items()}))
    return judged


def _sbert(pairs: Pairs, config: RewardConfig, embedder: Embedder | None) -> tuple[np.ndarray, Parts]:
    cosine = _above(_cosine(pairs, embedder), 0.0)
    return cosine, {"sbert": cosine}


def _sbert_above_floor(pairs: Pairs, config: RewardConfig, embedder: Embedder | None) -> tuple[np.ndarray, Parts]:
    value = _above(_cosine(pairs, embedder), config.sbert_floor)
    return value, {"sbert": value}


def _levenshtein(pairs: Pairs, config: RewardConfig, embedder: Embedder | None) -> tuple[np.ndarray, Parts]:
    value = np.array([Levenshtein.normalized_similarity(a.casefold(), r.casefold()) for a, r in pairs])
    return value, {"levenshtein": value}


def _hslr(pairs: Pairs, config: RewardConfig, embedder: Embedder | None) -> tuple[np.ndarray, Parts]:
    return hybrid(pairs, config.hslr, embedder, 0.0)


def _hslr_above_floor(pairs: Pairs, config: RewardConfig, embedder: Embedder | None) -> tuple[np.ndarray, Parts]:
    return hybrid(pairs, config.hslr, embedder, config.sbert_floor)


def _cosine(pairs: Pairs, embedder: Embedder | None) -> np.ndarray:
    if embedder is None:
        raise ValueError("this reward embeds sentences and was given no embedder")
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    row = {text: i for i, text in enumerate(texts)}
    vectors = embedder.encode(texts)
    left, right = ([row[pair[k]] for pair in pairs] for k in (0, 1))
    # Rounding must not keep an identical text below 1.
    return np.where(np.equal(left, right), 1.0, np.einsum("nd,nd->n", vectors[left], vectors[right]))


def _above(value: np.ndarray, floor: float) -> np.ndarray:
    return np.clip((value - floor) / (1 - floor), 0.0, 1.0)


def _identical_is_one(value: np.ndarray, pairs: Pairs) -> np.ndarray:
    return np.where([a == r and bool(a) for a, r in pairs], 1.0, value)


def _length_gate(answer: list[str], reference: list[str]) -> float:
    """1 up to `LONGER` times the reference's words, then falling with the square; repeated word pairs lower it."""
    if not answer or not reference:
        return float(answer == reference)
    length = min(1.0, LONGER * len(reference) / len(answer)) ** 2
    pairs = list(itertools.pairwise(answer))
    fresh = len(set(pairs)) / len(pairs) if pairs else 1.0
    usual = list(itertools.pairwise(reference))
    return length * min(1.0, fresh / (len(set(usual)) / len(usual) if usual else 1.0)) ** 2
