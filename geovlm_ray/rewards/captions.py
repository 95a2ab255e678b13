"""Caption rewards: sentence-embedding cosine, edit distance, and a weighted mean of text metrics (HSLR).

Of several references, the most similar one counts. The robust rewards compare content words (`Facts.words`) instead of
letters and surface words, and multiply the similarity by two gates: length and repetition, and factual agreement.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Sequence

import numpy as np
from rapidfuzz.distance import LCSseq, Levenshtein

from geovlm_ray.core.schema import Example, target_texts
from geovlm_ray.rewards.base import Embedder, RewardFn, RewardResult
from geovlm_ray.rewards.config import RewardConfig, TextWeights
from geovlm_ray.rewards.facts import MAX_CAPTION_CHARS, fact_agreement, facts
from geovlm_ray.rewards.text_metrics.lexical import meteor, rouge_f

MAX_LENGTH_RATIO = 1.6
"""Content words of the answer relative to the reference above which the length gate drops below 1."""
FREE_CONTENT_WORDS, FREE_WORDS = 3, 16
"""Content words and words that an answer may have beyond the ratio, for a lead-in or a detail."""
WORD_ORDER_WEIGHT = 0.15
"""Weight of the order of the content words in their similarity; our choice."""
SBERT_ONLY = TextWeights(sbert=1, rouge1=0, rougeL=0, meteor=0)

Pairs = list[tuple[str, str]]
Parts = dict[str, np.ndarray]
Similarity = Callable[[Pairs, RewardConfig, Embedder | None, bool], tuple[np.ndarray, Parts]]
"""Value in [0, 1] and named parts of each pair; the last argument is whether the form is robust."""
_WORD = re.compile(r"\w+")


def caption_reward(similarity: Similarity, *, robust: bool) -> RewardFn:
    """Reward function: similarity to the best reference; ``robust``: multiplied by the length and fact gates."""

    def score(
        answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
    ) -> list[RewardResult]:
        references = [target_texts(example.target) for example in examples]
        pairs = [(a.strip(), r.strip()) for a, rs in zip(answers, references, strict=True) for r in rs]
        values, parts = similarity(pairs, config, embedder, robust)
        if robust:
            values, factors = with_gates(values, pairs, config)
            parts |= factors
        results, first = [], 0
        for answer, refs in zip(answers, references, strict=True):
            best = max(range(first, first + len(refs)), key=lambda i: values[i], default=None)
            first += len(refs)
            if best is None or not answer.strip():
                results.append(RewardResult(0.0, status="unparseable"))
            else:
                results.append(
                    RewardResult(float(values[best]), {name: float(part[best]) for name, part in parts.items()})
                )
        return results

    return score


def with_gates(values: np.ndarray, pairs: Pairs, config: RewardConfig) -> tuple[np.ndarray, Parts]:
    """Values multiplied by the gates, and the gates in [0, 1]: ``length`` (length and repetition) and ``facts``."""
    length = np.array([_length_gate(a, r) for a, r in pairs])
    weight = config.fact_weight
    agreed = 1 - weight + weight * np.array([fact_agreement(a, r) for a, r in pairs])
    return values * length * agreed, {"length": length, "facts": agreed}


def hybrid(
    pairs: Pairs, weights: TextWeights, embedder: Embedder | None, floor: float, *, robust: bool
) -> tuple[np.ndarray, Parts]:
    """Weighted mean of the text metrics with non-zero weight, and each metric.

    SBERT is the cosine of the embeddings, with [``floor``, 1] mapped to [0, 1]. If ``robust``, the other metrics
    compare content words, and texts with the same content words score 1.
    """
    words = [(_content(a), _content(r)) for a, r in pairs] if robust else pairs
    metrics: dict[str, Callable[[], np.ndarray]] = {
        "sbert": lambda: np.clip((_cosine(pairs, embedder) - floor) / (1 - floor), 0.0, 1.0),
        "rouge1": lambda: rouge_f(words, "rouge1"),
        "rougeL": lambda: rouge_f(words, "rougeL"),
        "meteor": lambda: meteor(words),
    }
    # METEOR, ROUGE on texts without ASCII words, and rounded cosines score identical texts below 1.
    identical = np.array([a == r or (bool(x) and x == y) for (a, r), (x, y) in zip(pairs, words, strict=True)], bool)
    used = {name: weight for name in metrics if (weight := getattr(weights, name)) > 0}
    parts = {name: np.where(identical, 1.0, metrics[name]()) for name in used}
    value = np.sum([weight / sum(used.values()) * parts[name] for name, weight in used.items()], axis=0)
    # A sum of rounded weights can exceed 1 by a rounding error.
    return np.where(identical, 1.0, np.minimum(value, 1.0)), parts


def cosine(pairs: Pairs, config: RewardConfig, embedder: Embedder | None, robust: bool) -> tuple[np.ndarray, Parts]:
    """Cosine similarity of sentence embeddings; the robust form is at least the F1 of the content words (``words``)."""
    value, parts = hybrid(pairs, SBERT_ONLY, embedder, config.sbert_floor if robust else 0.0, robust=robust)
    if not robust:
        return value, parts
    words = np.array([_words_f1(a, r) for a, r in pairs])
    return np.maximum(value, words), parts | {"words": words}


def hslr(pairs: Pairs, config: RewardConfig, embedder: Embedder | None, robust: bool) -> tuple[np.ndarray, Parts]:
    """Weighted mean of SBERT, ROUGE-1, ROUGE-L and METEOR; the paper does not give the weights."""
    return hybrid(pairs, config.hslr, embedder, config.sbert_floor if robust else 0.0, robust=robust)


def levenshtein(
    pairs: Pairs, config: RewardConfig, embedder: Embedder | None, robust: bool
) -> tuple[np.ndarray, Parts]:
    """Levenshtein similarity, 1 - distance / max(length): of the case-folded letters, or of the content words.

    The robust form, in which words that differ by a letter are different, is the weighted mean of the F1 of the content
    words (``words``) and of the Levenshtein similarity of their sequences (``levenshtein``), which is low where a
    paraphrase names the same things in another order.
    """
    if not robust:
        value = np.array([Levenshtein.normalized_similarity(a.casefold(), r.casefold()) for a, r in pairs])
        return value, {"levenshtein": value}
    words = np.array([_words_f1(a, r) for a, r in pairs])
    order = np.array([Levenshtein.normalized_similarity(facts(a).words, facts(r).words) for a, r in pairs])
    return words + WORD_ORDER_WEIGHT * (order - words), {"words": words, "levenshtein": order}


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


def _content(text: str) -> str:
    return " ".join(facts(text).words)


def _words_f1(a: str, b: str) -> float:
    """F1 of the multisets of the content words; texts without any agree if they are equal."""
    left, right = facts(a).words, facts(b).words
    if not left and not right:
        return float(a == b)
    # The longest common subsequence of the sorted words is their multiset intersection.
    return 2 * LCSseq.similarity(sorted(left), sorted(right)) / (len(left) + len(right))


def _length_gate(answer: str, reference: str) -> float:
    """1 up to `MAX_LENGTH_RATIO`, then quadratic decay; reduced by bigrams repeated more than in the reference.

    Both the content words and all words count, the latter with more allowance for a lead-in.
    """
    said, distinct = _repetition(answer)
    expected, expected_distinct = _repetition(reference)
    if not said or not expected:
        return float(said == expected)
    content = _shortness(len(facts(answer).words), len(facts(reference).words), FREE_CONTENT_WORDS)
    length = min(content, _shortness(said, expected, FREE_WORDS))
    return length**2 * min(1.0, distinct / expected_distinct) ** 2


def _repetition(text: str) -> tuple[int, float]:
    """Number of words, and fraction of distinct bigrams; short texts are cached because references repeat."""
    return (_cached_repetition if len(text) <= MAX_CAPTION_CHARS else _cached_repetition.__wrapped__)(text)


@functools.lru_cache(maxsize=1 << 15)
def _cached_repetition(text: str) -> tuple[int, float]:
    words = _WORD.findall(text.casefold())
    return len(words), distinct_bigrams(words)


def _shortness(answer: int, reference: int, free: int) -> float:
    """Permitted length over the answer's length, at most 1."""
    return min(1.0, (MAX_LENGTH_RATIO * reference + free) / answer) if answer else 1.0
