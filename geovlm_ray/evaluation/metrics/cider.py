"""CIDEr of a corpus.

Vedantam, Zitnick & Parikh, "CIDEr: Consensus-based Image Description Evaluation", CVPR 2015, in the variant CIDEr-D
that coco-caption computes and papers report as CIDEr: raw term counts clipped to those of the reference, a Gaussian
penalty on the length difference, scaled by 10. Differences from coco-caption: tokens are runs of letters and digits of
the case-folded text instead of Penn Treebank tokens, without stemming.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

ORDERS = 4
SIGMA = 6.0
SCALE = 10.0

Grams = Counter[tuple[str, ...]]
_WORD = re.compile(r"\w+")


def cider(answers: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """CIDEr-D of each record: float array [n] in [0, 10], to be averaged over the corpus.

    N-grams are weighted by inverse document frequency over the records' references, so scores depend on the corpus, and
    a corpus of one record scores 0.
    """
    reference_grams = [[_grams(reference) for reference in refs] for refs in references]
    document_counts = Counter(
        gram for refs in reference_grams for gram in {g for ref in refs for order in ref for g in order}
    )
    idf = {gram: math.log(len(reference_grams) / n) for gram, n in document_counts.items()}
    max_idf = math.log(len(reference_grams)) if reference_grams else 0.0
    pairs = zip(map(_grams, answers), reference_grams, strict=True)
    return np.array([SCALE * np.mean([_similarity(a, ref, idf, max_idf) for ref in refs]) for a, refs in pairs])


def _grams(text: str) -> list[Grams]:
    """N-gram counts for n from 1 to `ORDERS`."""
    words = _WORD.findall(text.casefold())
    return [Counter(zip(*(words[i:] for i in range(n)), strict=False)) for n in range(1, ORDERS + 1)]


def _similarity(
    answer: list[Grams], reference: list[Grams], idf: dict[tuple[str, ...], float], max_idf: float
) -> float:
    """Mean over n of the clipped cosine of tf-idf vectors, times the length penalty.

    Length is the number of bigrams, as in coco-caption.
    """
    difference = answer[1].total() - reference[1].total()
    cosines = []
    for predicted, wanted in zip(answer, reference, strict=True):
        product = sum(min(predicted[g], n) * n * idf[g] ** 2 for g, n in wanted.items() if g in predicted)
        norms = math.sqrt(_squared_norm(predicted, idf, max_idf) * _squared_norm(wanted, idf, max_idf))
        cosines.append(product / norms if norms else 0.0)
    return sum(cosines) / ORDERS * math.exp(-(difference**2) / (2 * SIGMA**2))


def _squared_norm(grams: Grams, idf: dict[tuple[str, ...], float], max_idf: float) -> float:
    return sum((n * idf.get(gram, max_idf)) ** 2 for gram, n in grams.items())
