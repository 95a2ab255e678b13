"""Text metrics of answers against one or several references."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import numpy as np
from nltk.tokenize import word_tokenize
from sacrebleu.metrics.bleu import BLEU

from geovlm_ray.evaluation.metrics.bootstrap import Statistic
from geovlm_ray.rewards import Embedder
from geovlm_ray.rewards.text_metrics.lexical import meteor_of_tokens

Tokens = tuple[str, ...]
_WORD = re.compile(r"\w+")


def tokens(text: str) -> Tokens:
    """Tokens of nltk's ``word_tokenize``, with the text as one sentence.

    By default, nltk splits sentences first with a model that has to be downloaded; without it, the full stop of an
    inner sentence stays attached to its word.
    """
    return tuple(word_tokenize(text, preserve_line=True))


def over_references(values: np.ndarray, counts: Sequence[int], reduce: np.ufunc) -> np.ndarray:
    """Reduce values of (answer, reference) pairs, [sum of counts], to one per record, [n].

    Pairs are ordered by record; ``counts`` are the references of each, at least 1.
    """
    starts = np.cumsum([0, *counts])[:-1]
    return reduce.reduceat(values, starts) if len(starts) else np.zeros(0)


def best_meteor(answers: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> np.ndarray:
    """METEOR (nltk, see `geovlm_ray.rewards.text_metrics.lexical.meteor`) with the best reference: [n] in [0, 1]."""
    return np.array([max(_meteor(a, r) for r in refs) for a, refs in zip(answers, references, strict=True)])


@functools.lru_cache(maxsize=1 << 16)
def _meteor(answer: Tokens, reference: Tokens) -> float:
    return float(meteor_of_tokens([(answer, reference)])[0])


def best_cosine(answers: Sequence[str], references: Sequence[Sequence[str]], embedder: Embedder) -> np.ndarray:
    """Cosine of sentence embeddings with the closest reference: [n] in [-1, 1]; 0 for an answer without words."""
    texts = list(dict.fromkeys([*answers, *(r for refs in references for r in refs)]))
    row = {text: i for i, text in enumerate(texts)}
    vectors = embedder.encode(texts)
    best = [
        float((vectors[[row[r] for r in refs]] @ vectors[row[a]]).max()) if _WORD.search(a) else 0.0
        for a, refs in zip(answers, references, strict=True)
    ]
    return np.minimum(np.array(best), 1.0)


def corpus_bleu(answers: Sequence[str], references: Sequence[Sequence[str]]) -> Statistic:
    """Corpus BLEU: sacrebleu's score / 100 (4-grams, tokenizer 13a, exponential smoothing).

    N-grams are counted once per record; resamples only sum the counts.
    """
    metric = BLEU(effective_order=True)
    scores = [metric.sentence_score(a, list(refs)) for a, refs in zip(answers, references, strict=True)]
    per_record = np.array([(s.sys_len, s.ref_len, *s.counts, *s.totals) for s in scores], dtype=np.int64)

    def bleu(counts: np.ndarray) -> dict[str, float]:
        lengths, matches, totals = np.split(counts @ per_record, [2, 6])
        score = BLEU.compute_bleu(list(matches), list(totals), int(lengths[0]), int(lengths[1]), smooth_method="exp")
        return {"BLEU": min(score.score / 100, 1.0)}

    return bleu
