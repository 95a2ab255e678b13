"""CIDEr of a corpus.

Vedantam, Zitnick & Parikh, "CIDEr: Consensus-based Image Description Evaluation", CVPR 2015, in the form CIDEr-D
that coco-caption computes and the field publishes under the name CIDEr: raw term counts, counts above the
reference's clipped, a Gaussian penalty on the difference of lengths, times 10. Differences: words are runs of
letters and digits of the case-folded text, not those of the Penn Treebank tokenizer, and there is no stemming.
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

    A word sequence weighs by how few records' references hold it, so that the same answer scores differently in
    another corpus, and a corpus of one record has 0 throughout.
    """
    wanted = [[_grams(reference) for reference in refs] for refs in references]
    holders = Counter(gram for refs in wanted for gram in {g for ref in refs for order in ref for g in order})
    rarity = {gram: math.log(len(wanted) / n) for gram, n in holders.items()}
    unseen = math.log(len(wanted)) if wanted else 0.0
    scores = []
    for answer, refs in zip(map(_grams, answers), wanted, strict=True):
        scores.append(SCALE * np.mean([_similarity(answer, ref, rarity, unseen) for ref in refs]))
    return np.array(scores)


def _grams(text: str) -> list[Grams]:
    """Counted word sequences of length 1 to `ORDERS`."""
    words = _WORD.findall(text.casefold())
    return [Counter(zip(*(words[i:] for i in range(n)), strict=False)) for n in range(1, ORDERS + 1)]


def _similarity(
    answer: list[Grams], reference: list[Grams], rarity: dict[tuple[str, ...], float], unseen: float
) -> float:
    """Mean over the orders of the clipped cosine of tf-idf vectors, times the length penalty.

    Length is the number of word pairs, as in coco-caption.
    """
    difference = answer[1].total() - reference[1].total()
    cosines = []
    for said, wanted in zip(answer, reference, strict=True):
        product = sum(min(said[g], n) * n * rarity[g] ** 2 for g, n in wanted.items() if g in said)
        norms = math.sqrt(_squared(said, rarity, unseen) * _squared(wanted, rarity, unseen))
        cosines.append(product / norms if norms else 0.0)
    return sum(cosines) / ORDERS * math.exp(-(difference**2) / (2 * SIGMA**2))


def _squared(grams: Grams, rarity: dict[tuple[str, ...], float], unseen: float) -> float:
    return sum((n * rarity.get(gram, unseen)) ** 2 for gram, n in grams.items())
