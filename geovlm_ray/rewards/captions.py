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

from geovlm_ray.core.schema import Example, target_texts
from geovlm_ray.rewards.base import Embedder, RewardFn, RewardResult
from geovlm_ray.rewards.config import RewardConfig, TextWeights
from geovlm_ray.rewards.facts import agreement
from geovlm_ray.rewards.text_metrics.lexical import meteor, rouge_f

MAX_LENGTH_RATIO = 1.6
"""Answer length relative to the reference, in words, above which the length gate drops below 1."""
SBERT_ONLY = TextWeights(sbert=1, rouge1=0, rougeL=0, meteor=0)

Pairs = list[tuple[str, str]]
Parts = dict[str, np.ndarray]
Similarity = Callable[[Pairs, RewardConfig, Embedder | None, float], tuple[np.ndarray, Parts]]
"""Value in [0, 1] and named parts of each pair; the number is the cosine that becomes 0."""
_WORD = re.compile(r"\w+")


def caption_reward(similarity: Similarity, *, gated: bool) -> RewardFn:
    """Reward function: similarity to the best reference.

    If ``gated``, multiplied by the length and fact gates, with cosines rescaled above ``config.sbert_floor``.
    """

    def score(
        answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
    ) -> list[RewardResult]:
        references = [target_texts(example.target) for example in examples]
        pairs = [(a.strip(), r.strip()) for a, rs in zip(answers, references, strict=True) for r in rs]
        values, parts = similarity(pairs, config, embedder, config.sbert_floor if gated else 0.0)
        if gated:
            values, factors = with_gates(values, pairs, config)
            parts |= factors
        results, first = [], 0
        for answer, refs in zip(answers, references, strict=True):
            best = max(range(first, first + len(refs)), key=lambda i: values[i], default=None)
            first += len(refs)
            if best is None or not answer.strip():
                results.append(RewardResult(0.0, status="unparseable"))
            else:
                value = float(np.clip(values[best], 0.0, 1.0))
                results.append(RewardResult(value, {name: float(part[best]) for name, part in parts.items()}))
        return results

    return score


def with_gates(values: np.ndarray, pairs: Pairs, config: RewardConfig) -> tuple[np.ndarray, Parts]:
    """Values multiplied by the gates, and the gates in [0, 1]: ``length`` (length and repetition) and ``facts``."""
    length = np.array([_length_gate(_WORD.findall(a.casefold()), _WORD.findall(r.casefold())) for a, r in pairs])
    facts = 1 - config.fact_weight * (1 - np.array([agreement(a, r) for a, r in pairs]))
    return values * length * facts, {"length": length, "facts": facts}


def hybrid(pairs: Pairs, weights: TextWeights, embedder: Embedder | None, floor: float) -> tuple[np.ndarray, Parts]:
    """Weighted mean of the text metrics with non-zero weight, and each metric.

    SBERT is the cosine of the embeddings, with [``floor``, 1] mapped to [0, 1].
    """
    metrics: dict[str, Callable[[], np.ndarray]] = {
        "sbert": lambda: np.clip((_cosine(pairs, embedder) - floor) / (1 - floor), 0.0, 1.0),
        "rouge1": lambda: rouge_f(pairs, "rouge1"),
        "rougeL": lambda: rouge_f(pairs, "rougeL"),
        "meteor": lambda: meteor(pairs),
    }
    # METEOR, ROUGE on texts without ASCII words, and rounded cosines score identical texts below 1.
    identical = np.array([answer == reference for answer, reference in pairs], dtype=bool)
    used = {name: weight for name in metrics if (weight := getattr(weights, name)) > 0}
    parts = {name: np.where(identical, 1.0, metrics[name]()) for name in used}
    value = np.sum([weight / sum(used.values()) * parts[name] for name, weight in used.items()], axis=0)
    return np.where(identical, 1.0, value), parts


def cosine(pairs: Pairs, config: RewardConfig, embedder: Embedder | None, floor: float) -> tuple[np.ndarray, Parts]:
    """Cosine similarity of sentence embeddings."""
    return hybrid(pairs, SBERT_ONLY, embedder, floor)


def hslr(pairs: Pairs, config: RewardConfig, embedder: Embedder | None, floor: float) -> tuple[np.ndarray, Parts]:
    """Weighted mean of SBERT, ROUGE-1, ROUGE-L and METEOR; the paper does not give the weights."""
    return hybrid(pairs, config.hslr, embedder, floor)


def levenshtein(
    pairs: Pairs, config: RewardConfig, embedder: Embedder | None, floor: float
) -> tuple[np.ndarray, Parts]:
    """Levenshtein similarity of the case-folded texts: 1 - distance / max(length)."""
    value = np.array([Levenshtein.normalized_similarity(a.casefold(), r.casefold()) for a, r in pairs])
    return value, {"levenshtein": value}


def distinct_bigrams(words: Sequence[str]) -> float:
    """Fraction of distinct word bigrams; 1 if there are none."""
    bigrams = list(itertools.pairwise(words))
    return len(set(bigrams)) / len(bigrams) if bigrams else 1.0


def _cosine(pairs: Pairs, embedder: Embedder | None) -> np.ndarray:
    if embedder is None:
        raise ValueError("this reward embeds sentences: expected an embedder, found none")
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    row = {text: i for i, text in enumerate(texts)}
    vectors = embedder.encode(texts)
    left, right = ([row[pair[k]] for pair in pairs] for k in (0, 1))
    return np.einsum("nd,nd->n", vectors[left], vectors[right])


def _length_gate(answer: list[str], reference: list[str]) -> float:
    """1 up to `MAX_LENGTH_RATIO`, then quadratic decay; reduced by bigrams repeated more than in the reference."""
    if not answer or not reference:
        return float(answer == reference)
    length = min(1.0, MAX_LENGTH_RATIO * len(reference) / len(answer)) ** 2
    return length * min(1.0, distinct_bigrams(answer) / distinct_bigrams(reference)) ** 2
