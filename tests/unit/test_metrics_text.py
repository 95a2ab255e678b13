"""Text metrics equal the packages that define them, or a direct form of their definition."""

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


@pytest.mark.parametrize("stem", [True, False])
def test_rouge_equals_rouge_score(stem: bool) -> None:
    answers, references = corpus(200)
    pairs = [(a, r) for a, refs in zip(answers, references, strict=True) for r in refs]
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=stem)
    wanted = [scorer.score(reference, answer) for answer, reference in pairs]
    for kind in ("rouge1", "rougeL"):
        assert np.allclose(rouge(pairs, kind, stem), [tuple(w[kind]) for w in wanted], rtol=0, atol=1e-9)


def test_meteor_is_nltks_best_reference() -> None:
    answers, references = corpus(30)
    said, wanted = list(map(tokens, answers)), [list(map(tokens, refs)) for refs in references]
    direct = [meteor_score(w, s, wordnet=open_wordnet()) for s, w in zip(said, wanted, strict=True)]
    assert best_meteor(said, wanted) == pytest.approx(direct, abs=1e-12)


def test_bleu_equals_sacrebleu_on_any_resampled_corpus() -> None:
    answers, references = corpus(40)
    references = [(refs * 4)[:4] for refs in references]
    counts = np.random.default_rng(0).integers(0, 3, len(answers))
    drawn = np.repeat(np.arange(len(answers)), counts)
    streams = [[references[i][k] for i in drawn] for k in range(4)]
    wanted = BLEU().corpus_score([answers[i] for i in drawn], streams).score / 100
    assert corpus_bleu(answers, references)(counts)["BLEU"] == pytest.approx(wanted, abs=1e-12)


def direct_cider(answers: Sequence[str], references: Sequence[Sequence[str]], i: int) -> float:
    """CIDEr-D written as its paper has it, one reference and one order at a time."""

    def grams(text: str, n: int) -> Counter[tuple[str, ...]]:
        words = re.findall(r"\w+", text.casefold())
        return Counter(tuple(words[k : k + n]) for k in range(len(words) - n + 1))

    total = 0.0
    for reference in references[i]:
        for n in (1, 2, 3, 4):
            said, wanted = grams(answers[i], n), grams(reference, n)
            holders = {g: sum(any(g in grams(r, n) for r in refs) for refs in references) for g in {*said, *wanted}}
            rarity = {g: math.log(len(references) / max(1, h)) for g, h in holders.items()}
            left, right = ({g: c * rarity[g] for g, c in counts.items()} for counts in (said, wanted))
            dot = sum(min(left.get(g, 0.0), right[g]) * right[g] for g in right)
            norm = math.sqrt(sum(v * v for v in left.values())) * math.sqrt(sum(v * v for v in right.values()))
            apart = grams(answers[i], 2).total() - grams(reference, 2).total()
            total += (dot / norm if norm else 0.0) * math.exp(-(apart**2) / 72)
    return 10 * total / 4 / len(references[i])


def test_cider_follows_its_definition() -> None:
    answers, references = corpus(25)
    answers[:5] = [refs[0] for refs in references[:5]]
    wanted = [direct_cider(answers, references, i) for i in range(len(answers))]
    assert max(wanted) > 1
    assert cider(answers, references) == pytest.approx(wanted, abs=1e-9)


def test_cider_bounds() -> None:
    long = ["two white ships lie near the long pier", "a green forest stands beside the wide river"]
    assert cider(long, [[long[0]], [long[1]]]) == pytest.approx([10.0, 10.0])
    assert cider(long[:1], [[long[0]]]) == pytest.approx([0.0])
    assert cider(["", "x" * 10_000], [[long[0]], [long[1]]]) == pytest.approx([0.0, 0.0])


class Letters:
    """Embeds a text by the letters it holds."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.array([[text.count(letter) for letter in "abcdef"] for text in texts], dtype=np.float32)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def test_cosine_of_the_nearest_reference() -> None:
    found = best_cosine(["ab", "  ", "c"], [["ab", "c"], ["ab"], ["ab", "bc"]], Letters())
    assert found == pytest.approx([1.0, 0.0, math.sqrt(0.5)])


def test_over_references() -> None:
    values = np.array([1.0, 3.0, 2.0, 5.0])
    assert over_references(values, [2, 1, 1], np.maximum).tolist() == [3.0, 2.0, 5.0]
    assert over_references(values, [1, 3], np.add).tolist() == [1.0, 10.0]
    assert len(over_references(np.zeros(0), [], np.add)) == 0
