"""Sentence-level ROUGE and METEOR, one score per (hypothesis, reference) pair.

Every string gets a score, in time linear in the length of the hypothesis.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from rapidfuzz.distance import LCSseq

from geovlm_ray.rewards.text_metrics.wordnet import open_wordnet

RougeKind = Literal["rouge1", "rougeL"]
Pairs = Sequence[tuple[str, str]]

# Longer words and texts are not cached, so that adversarial answers cannot fill the caches.
MAX_CACHED_WORD = 64
MAX_CACHED_TEXT = 1024

_NOT_A_WORD = re.compile(r"[^a-z0-9]+")


def rouge(pairs: Pairs, kind: RougeKind) -> np.ndarray:
    """Precision, recall and F1 of sentence-level ROUGE-1 or ROUGE-L, as in the rouge-score package.

    Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004. Words are runs of ASCII letters and digits of
    the lower-cased text; words of four or more characters are Porter-stemmed. ROUGE-1 overlap is a multiset
    intersection, that of ROUGE-L the longest common subsequence of words. A text without words scores 0.

    Returns:
        Float array of shape (n, 3) for n pairs, each row precision, recall, F1 in [0, 1].
    """
    scores = np.zeros((len(pairs), 3))
    common_words = _overlap if kind == "rouge1" else LCSseq.similarity
    for row, (hypothesis, reference) in zip(scores, pairs, strict=True):
        predicted, expected = _words(hypothesis), _words(reference)
        common = common_words(predicted, expected)
        if common:
            precision, recall = common / len(predicted), common / len(expected)
            row[:] = precision, recall, 2 * precision * recall / (precision + recall)
    return scores


def rouge_f(pairs: Pairs, kind: RougeKind) -> np.ndarray:
    """F1 of `rouge`: float array of shape (n,) in [0, 1]."""
    return rouge(pairs, kind)[:, 2]


def meteor(pairs: Pairs) -> np.ndarray:
    """METEOR as nltk computes it: float array of shape (n,) in [0, 1].

    This is the variant used in published results: Lavie & Agarwal 2007 with alpha 0.9, beta 3, gamma 0.5
    (``nltk.translate.meteor_score``; not METEOR 1.5), exact, Porter-stem and WordNet-synonym matching on ``str.split``
    tokens. Identical texts score 0.5 for one word and approach 1 for many.

    Raises:
        WordNetMissing: The WordNet corpus is not installed.
    """
    return meteor_of_tokens([(hypothesis.split(), reference.split()) for hypothesis, reference in pairs])


def meteor_of_tokens(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> np.ndarray:
    """`meteor` of tokenized (hypothesis, reference) pairs."""
    from nltk.translate.meteor_score import single_meteor_score

    # nltk looks the same words up repeatedly, so its stemmer and its corpus are cached functions here.
    resources = {"stemmer": SimpleNamespace(stem=stem), "wordnet": SimpleNamespace(synsets=_synsets)}
    scores = [single_meteor_score(reference, hypothesis, **resources) for hypothesis, reference in pairs]
    return np.array(scores, dtype=np.float64)


def _words(text: str) -> tuple[str, ...]:
    """Tokens of a text as in rouge-score; short texts are cached because references repeat."""
    return (_cached_words if len(text) <= MAX_CACHED_TEXT else _cached_words.__wrapped__)(text)


@functools.lru_cache(maxsize=1 << 15)
def _cached_words(text: str) -> tuple[str, ...]:
    words = _NOT_A_WORD.sub(" ", text.lower()).split()
    return tuple(stem(word) if len(word) > 3 else word for word in words)


def _overlap(hypothesis: tuple[str, ...], reference: tuple[str, ...]) -> int:
    """Size of the multiset intersection of two word lists."""
    return (Counter(hypothesis) & Counter(reference)).total()


@functools.cache
def _porter() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


@functools.lru_cache(maxsize=1 << 16)
def _cached_stem(word: str) -> str:
    return _porter().stem(word)


def stem(word: str) -> str:
    """Porter stem of a lower-case word, cached."""
    return (_cached_stem if len(word) <= MAX_CACHED_WORD else _cached_stem.__wrapped__)(word)


@functools.lru_cache(maxsize=1 << 16)
def _cached_synsets(word: str) -> list[SimpleNamespace]:
    """The synonyms of all senses of a word, with the interface of one synset of nltk."""
    names = {name for synset in open_wordnet().synsets(word) for name in synset.lemma_names() if "_" not in name}
    lemmas = [SimpleNamespace(name=functools.partial(str, name)) for name in sorted(names)]
    return [SimpleNamespace(lemmas=lambda: lemmas)] if names else []


def _synsets(word: str) -> list[SimpleNamespace]:
    return _cached_synsets(word) if len(word) <= MAX_CACHED_WORD else []
