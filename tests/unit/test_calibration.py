"""Calibration of confidence: against plain references, and in results of an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geovlm_ray.core.schema import Example, RewardScore, Sample
from geovlm_ray.evaluation.examples import BenchmarkExample
from geovlm_ray.evaluation.metrics.bootstrap import intervals
from geovlm_ray.evaluation.metrics.calibration import expected_calibration_error, reliability
from geovlm_ray.evaluation.page import write_page
from geovlm_ray.evaluation.predictions import Predictions, prediction_row
from geovlm_ray.evaluation.registry import BENCHMARKS
from geovlm_ray.evaluation.results import Results, result_of, write_results
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.local import LocalRewards

BENCHMARK = next(b for b in BENCHMARKS.values() if b.task == "vqa")


def plain_ece(confidences: list[float], scores: list[float]) -> float:
    """Guo et al., 2017, equation 3, with M = 10 bins."""
    n, total = len(scores), 0.0
    for m in range(10):
        members = [i for i, c in enumerate(confidences) if m / 10 <= c < (m + 1) / 10 or (m == 9 and c == 1)]
        if members:
            gap = abs(np.mean([confidences[i] for i in members]) - np.mean([scores[i] for i in members]))
            total += len(members) / n * gap
    return total


@pytest.mark.parametrize("seed", range(4))
def test_ece_is_that_of_the_paper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidences, scores = [*rng.random(300), 0.0, 1.0], [*rng.integers(0, 2, 300).astype(float), 1.0, 0.25]
    statistic = expected_calibration_error(confidences, scores)
    assert statistic(np.ones(302, dtype=np.int64))["ECE"] == pytest.approx(plain_ece(confidences, scores))
    counts = rng.integers(0, 3, 302)
    repeated = [np.repeat(values, counts).tolist() for values in (confidences, scores)]
    assert statistic(counts)["ECE"] == pytest.approx(plain_ece(*repeated))
    interval = intervals(statistic, 302)["ECE"]
    assert interval.low <= interval.value <= interval.high


def test_bins_have_their_means() -> None:
    rows = reliability([0.05, 0.95, 1.0, 0.91], [0.0, 1.0, 0.5, 1.0])
    assert [row["n"] for row in rows] == [1, 3]
    assert rows[1]["confidence"] == pytest.approx(np.mean([0.95, 1.0, 0.91]))
    assert rows[1]["score"] == pytest.approx(2.5 / 3)


def answered(place: int, answer: str, confidence: float | None, stated: str = "") -> dict[str, object]:
    example = Example(str(place), "vqa", ("a.png",), "Is there a ship?", "yes")
    score = float(answer == "yes")
    text = f"<think>a</think><answer>{answer}</answer>{stated}"
    sample = Sample((1,), (-0.1,), text, "stop", 0, reward=RewardScore(1 + score, 1.0, score))
    return prediction_row(place, BenchmarkExample(example), sample, confidence)


def test_results_and_page_have_the_calibration(tmp_path: Path) -> None:
    rows = [answered(k, "yes" if k % 2 else "no", 0.85) for k in range(20)]
    results = Results("model", {BENCHMARK.name: result_of(BENCHMARK, rows, LocalRewards(RewardConfig()))})
    result = results.benchmarks[BENCHMARK.name]
    assert result.sound["ECE"].value == pytest.approx(0.35)
    assert result.reliability == [{"n": 20, "confidence": pytest.approx(0.85), "score": 0.5}]
    predictions = Predictions(tmp_path / "predictions", BENCHMARK.name)
    predictions.add(rows)
    predictions.finish()
    write_results(results, tmp_path)
    page = write_page(results, tmp_path).read_text()
    assert "Reliability diagram, mean score by confidence: 0.85: 0.50 of 20 records." in page


def test_stated_confidence_counts_first() -> None:
    rows = [answered(k, "yes", 0.2, "<confidence>0.9</confidence>") for k in range(5)]
    result = result_of(BENCHMARK, rows, LocalRewards(RewardConfig()))
    assert result.sound["ECE"].value == pytest.approx(0.1)


def test_without_confidence_there_is_no_calibration() -> None:
    result = result_of(BENCHMARK, [answered(0, "yes", None), answered(1, "no", 0.5)], LocalRewards(RewardConfig()))
    assert "ECE" not in result.sound
    assert result.reliability == []
