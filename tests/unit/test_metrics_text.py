"""Text metrics equal their reference packages, or a direct implementation of their definition."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from geovlm_ray.evaluation.metrics.cider import cider
from geovlm_ray.evaluation.metrics.text import best_cosine, best_meteor, corpus_bleu, over_references, tokens
from geovlm_ray.rewards.text_metrics.lexical import rouge
from geovlm_ray.rewards.text_metrics.wordnet import open_wordnet

WORDS = tuple(
    re.split(" ", "there are two white ships near the airport, Runway's don't naïve 3.5 km² a a boats parked .")
)


def corpus(n: int, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    rng = random.Random(seed)

    def text() -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(0, 14)))

    return [text() for _ in range(n)], [[text() for _ in range(rng.randint(1, 4))] for _ in range(n)]


def test_rouge_equals_rouge_score() -> None:
    answers, references = corpus(200)
    pairs = [(a, r) for a, refs in zip(answers, references, strict=True) for r in refs]
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    expected = [scorer.score(reference, answer) for answer, reference in pairs]
    for kind in ("rouge1", "rougeL"):
        assert np.allclose(rouge(pairs, kind), [tuple(w[kind]) for w in expected], rtol=0, atol=1e-9)


def test_meteor_equals_nltk_on_the_best_reference() -> None:
    answers, references = corpus(30)
    predicted, tokenised = list(map(tokens, answers)), [list(map(tokens, refs)) for refs in references]
    direct = [meteor_score(r, p, wordnet=open_wordnet()) for p, r in zip(predicted, tokenised, strict=True)]
    assert best_meteor(predicted, tokenised) == pytest.approx(direct, abs=1e-12)


def test_bleu_equals_sacrebleu_on_any_resampled_corpus() -> None:
    answers, references = corpus(40)
    references = [(refs * 4)[:4] for refs in references]
    counts = np.random.default_rng(0).integers(0, 3, len(answers))
    resampled = np.repeat(np.arange(len(answers)), counts)
    streams = [[references[i][k] for i in resampled] for k in range(4)]
    expected = BLEU().corpus_score([answers[i] for i in resampled], streams).score / 100
    assert corpus_bleu(answers, references)(counts)["BLEU"] == pytest.approx(expected, abs=1e-12)


def direct_cider(answers: Sequence[str], references: Sequence[Sequence[str]], i: int) -> float:
    """CIDEr-D as defined in its paper, one reference and one n-gram order at a time."""

    def grams(text: str, n: int) -> Counter[tuple[str, ...]]:
        words = re.findall(r"\w+", text.casefold())
        return Counter(tuple(words[k : k + n]) for k in range(len(words) - n + 1))

    total = 0.0
    for reference in references[i]:
        for n in (1, 2, 3, 4):
            predicted, expected = grams(answers[i], n), grams(reference, n)
            document_frequency = {
                g: sum(any(g in grams(r, n) for r in refs) for refs in references) for g in {*predicted, *expected}
            }
            idf = {g: math.log(len(references) / max(1, h)) for g, h in document_frequency.items()}
            left, right = ({g: c * idf[g] for g, c in counts.items()} for counts in (predicted, expected))
            dot = sum(min(left.get(g, 0.0), right[g]) * right[g] for g in right)
            norm = math.sqrt(sum(v * v for v in left.values())) * math.sqrt(sum(v * v for v in right.values()))
            length_difference = grams(answers[i], 2).total() - grams(reference, 2).total()
            total += (dot / norm if norm else 0.0) * math.exp(-(length_difference**2) / 72)
    return 10 * total / 4 / len(references[i])


def test_cider_follows_its_definition() -> None:
    answers, references = corpus(25)
    answers[:5] = [refs[0] for refs in references[:5]]
    expected = [direct_cider(answers, references, i) for i in range(len(answers))]
    assert max(expected) > 1
    assert cider(answers, references) == pytest.approx(expected, abs=1e-9)


def test_cider_extreme_values() -> None:
    long = ["two white ships lie near the long pier", "a green forest stands beside the wide river"]
    assert cider(long, [[long[0]], [long[1]]]) == pytest.approx([10.0, 10.0])
    assert cider(long[:1], [[long[0]]]) == pytest.approx([0.0])
    assert cider(["", "x" * 10_000], [[long[0]], [long[1]]]) == pytest.approx([0.0, 0.0])


class LetterEmbedder:
    """Embeds a text as its letter counts."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.array([[text.count(letter) for letter in "abcdef"] for text in texts], dtype=np.float32)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def test_cosine_uses_the_nearest_reference() -> None:
    found = best_cosine(["ab", "  ", "c"], [["ab", "c"], ["ab"], ["ab", "bc"]], LetterEmbedder())
    assert found == pytest.approx([1.0, 0.0, math.sqrt(0.5)])


def test_reduce_over_references() -> None:
    values = np.array([1.0, 3.0, 2.0, 5.0])
    assert over_references(values, [2, 1, 1], np.maximum).tolist() == [3.0, 2.0, 5.0]
    assert over_references(values, [1, 3], np.add).tolist() == [1.0, 10.0]
    assert len(over_references(np.zeros(0), [], np.add)) == 0
