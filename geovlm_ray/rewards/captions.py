"""Caption rewards: sentence-embedding cosine, edit distance, and a weighted mean of text metrics (HSLR).

Of several references, the most similar one counts. The robust rewards multiply the similarity by two gates: length
and repetition, and factual agreement.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

from geovlm_ray.core.schema import Example
from geovlm_ray.rewards.base import Embedder, RewardFn, RewardResult
from geovlm_ray.rewards.config import RewardConfig, TextWeights
from geovlm_ray.rewards.facts import agreement
from geovlm_ray.rewards.text_metrics.lexical import meteor, rouge_f

MAX_LENGTH_RATIO = 1.6
"""Answer length relative to the reference, in words, above which the length gate drops below 1."""

Pairs = list[tuple[str, str]]
Parts = dict[str, np.ndarray]
Similarity = Callable[[Pairs, RewardConfig, Embedder | None], tuple[np.ndarray, Parts]]
_WORD = re.compile(r"\w+")


def hslr_embeds(config: RewardConfig) -> bool:
    """Whether HSLR needs sentence embeddings under a configuration."""
    return config.hslr.sbert > 0


def best_of_references(values: np.ndarray, owners: Sequence[int], n: int) -> list[int]:
    """Index of the highest-scoring pair of each of ``n`` answers, or -1; ``owners`` maps pairs to answers."""
    best = [-1] * n
    for i, owner in enumerate(owners):
        if best[owner] < 0 or values[i] > values[best[owner]]:
            best[owner] = i
    return best


def gates(pairs: Pairs, config: RewardConfig) -> Parts:
    """Multipliers in [0, 1] per pair: ``length`` (length and repetition) and ``facts``."""
    length = np.array([_length_gate(_WORD.findall(a.casefold()), _WORD.findall(r.casefold())) for a, r in pairs])
    facts = np.array([agreement(a, r) for a, r in pairs])
    return {"length": length, "facts": 1 - config.fact_weight * (1 - facts)}


def hybrid(pairs: Pairs, weights: TextWeights, embedder: Embedder | None, floor: float) -> tuple[np.ndarray, Parts]:
    """Weighted mean of the text metrics with non-zero weight, and each metric; ``floor`` applies to SBERT."""
    parts: Parts = {}
    if weights.sbert > 0:
        parts["sbert"] = _rescale(_cosine(pairs, embedder), floor)
    if weights.rouge1 > 0:
        parts["rouge1"] = rouge_f(pairs, "rouge1")
    if weights.rougeL > 0:
        parts["rougeL"] = rouge_f(pairs, "rougeL")
    if weights.meteor > 0:
        parts["meteor"] = meteor(pairs)
    # METEOR, and ROUGE on texts without ASCII words, score identical texts below 1.
    identical = np.array([answer == reference for answer, reference in pairs], dtype=bool)
    parts = {name: np.where(identical, 1.0, part) for name, part in parts.items()}
    total = sum(getattr(weights, name) for name in parts)
    value = np.sum([getattr(weights, name) / total * part for name, part in parts.items()], axis=0)
    return np.where(identical, 1.0, value), parts


def caption_reward(similarity: Similarity, *, gated: bool) -> RewardFn:
    """Reward function: similarity to the best reference, multiplied by the length and fact gates if ``gated``."""

    def score(
        answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
    ) -> list[RewardResult]:
        references = [tuple(map(str, e.target)) for e in examples]  # type: ignore[arg-type]
        pairs = [(a.strip(), r.strip()) for a, rs in zip(answers, references, strict=True) for r in rs]
        owners = [i for i, rs in enumerate(references) for _ in rs]
        values, parts = similarity(pairs, config, embedder)
        if gated:
            factors = gates(pairs, config)
            values = values * factors["length"] * factors["facts"]
            parts = {**parts, **factors}
        best = best_of_references(values, owners, len(answers))
        return [_result(i, answer, values, parts) for i, answer in zip(best, answers, strict=True)]

    return score


def _result(pair: int, answer: str, values: np.ndarray, parts: Parts) -> RewardResult:
    if pair < 0 or not answer.strip():
        return RewardResult(0.0, status="unparseable")
    return RewardResult(
        float(np.clip(values[pair], 0.0, 1.0)), {name: float(part[pair]) for name, part in parts.items()}
    )


def cosine(pairs: Pairs, config: RewardConfig, embedder: Embedder | None) -> tuple[np.ndarray, Parts]:
    """Cosine similarity of sentence embeddings, clipped to [0, 1]."""
    cosine = _rescale(_cosine(pairs, embedder), 0.0)
    return cosine, {"sbert": cosine}


def cosine_above_floor(pairs: Pairs, config: RewardConfig, embedder: Embedder | None) -> tuple[np.ndarray, Parts]:
    """Cosine similarity of sentence embeddings, with [``config.sbert_floor``, 1] mapped to [0, 1]."""
    value = _rescale(_cosine(pairs, embedder), config.sbert_floor)
    return value, {"sbert": value}


def levenshtein(pairs: Pairs, config: RewardConfig, embedder: Embedder | None) -> tuple[np.ndarray, Parts]:
    """Levenshtein similarity of the case-folded texts: 1 - distance / max(length)."""
    value = np.array([Levenshtein.normalized_similarity(a.casefold(), r.casefold()) for a, r in pairs])
    return value, {"levenshtein": value}


def hslr(pairs: Pairs, config: RewardConfig, embedder: Embedder | None) -> tuple[np.ndarray, Parts]:
    """Weighted mean of SBERT, ROUGE-1, ROUGE-L and METEOR; the paper does not give the weights."""
    return hybrid(pairs, config.hslr, embedder, 0.0)


def hslr_above_floor(pairs: Pairs, config: RewardConfig, embedder: Embedder | None) -> tuple[np.ndarray, Parts]:
    """`hslr` with SBERT rescaled above ``config.sbert_floor``."""
    return hybrid(pairs, config.hslr, embedder, config.sbert_floor)


def _cosine(pairs: Pairs, embedder: Embedder | None) -> np.ndarray:
    if embedder is None:
        raise ValueError("this reward embeds sentences: expected an embedder, found none")
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    row = {text: i for i, text in enumerate(texts)}
    vectors = embedder.encode(texts)
    left, right = ([row[pair[k]] for pair in pairs] for k in (0, 1))
    # Avoid rounding errors: identical texts have cosine exactly 1.
    return np.where(np.equal(left, right), 1.0, np.einsum("nd,nd->n", vectors[left], vectors[right]))


def _rescale(value: np.ndarray, floor: float) -> np.ndarray:
    return np.clip((value - floor) / (1 - floor), 0.0, 1.0)


def _length_gate(answer: list[str], reference: list[str]) -> float:
    """1 up to `MAX_LENGTH_RATIO`, then quadratic decay; reduced by bigrams repeated more than in the reference."""
    if not answer or not reference:
        return float(answer == reference)
    length = min(1.0, MAX_LENGTH_RATIO * len(reference) / len(answer)) ** 2
    return length * min(1.0, _distinct_bigrams(answer) / _distinct_bigrams(reference)) ** 2


def _distinct_bigrams(words: list[str]) -> float:
    """Fraction of distinct bigrams; 1 if there are none."""
    bigrams = list(itertools.pairwise(words))
    return len(set(bigrams)) / len(bigrams) if bigrams else 1.0
