"""Class metrics, bootstrap intervals, and the sound metrics of every kind of task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from geovlm_ray.core.schema import Box, Example, GroundedText
from geovlm_ray.evaluation.metrics.bootstrap import Interval, grouped, intervals, means
from geovlm_ray.evaluation.metrics.classes import class_scores
from geovlm_ray.evaluation.metrics.sound import AnsweredExample, sound_metrics


def sets(*groups: str) -> list[frozenset[str]]:
    return [frozenset(group) for group in groups]


def test_class_scores() -> None:
    found = class_scores(sets("a", "ab", "c", "z", ""), sets("a", "a", "b", "b", ""))(np.ones(5, int))
    assert found["accuracy"] == pytest.approx(2 / 5)
    assert found["F1 samples"] == pytest.approx((1 + 2 / 3 + 0 + 0 + 1) / 5)
    assert found["F1 micro"] == pytest.approx(2 * 2 / 9)
    assert found["F1 macro"] == pytest.approx((1 + 0) / 2)


def test_class_scores_with_counts_equal_those_of_repeated_records() -> None:
    predicted, true, counts = sets("a", "ab", "c"), sets("a", "b", "b"), np.array([2, 0, 3])
    repeated = class_scores(sets("a", "a", "c", "c", "c"), sets("a", "a", "b", "b", "b"))(np.ones(5, int))
    assert class_scores(predicted, true)(counts) == pytest.approx(repeated)
    assert class_scores(predicted, true)(np.zeros(3, int)) == {}


def test_intervals_contain_the_value_and_cover_the_true_mean() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        column = {"mean": rng.random(100) < 0.3}
        found = intervals(means(column), 100, resamples=200)["mean"]
        assert found.low <= found.value <= found.high
        covered += found.low <= 0.3 <= found.high
    assert covered >= 50


def test_intervals_are_reproducible_and_shrink_to_a_point() -> None:
    column = {"x": np.arange(20.0)}
    assert intervals(means(column), 20) == intervals(means(column), 20)
    assert intervals(means({"x": np.ones(1)}), 1) == {"x": Interval(1.0, 1.0, 1.0)}


def test_groups_are_scored_on_their_records_only() -> None:
    groups = {"even": np.array([True, False, True]), "none": np.zeros(3, bool)}
    found = grouped(means({"x": np.array([1.0, 5.0, 3.0])}), groups)(np.array([1, 1, 1]))
    assert found == {"x": 3.0, "x even": 2.0}


class ConstantEmbedder:
    """Embedder that maps all texts to the same vector."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.ones((len(texts), 1), np.float32)


def answered(task: str, answer: str, target: Any, group: str | None = None) -> AnsweredExample:
    return AnsweredExample(answer, Example("0", task, (), "", target), group)


def values(records: list[AnsweredExample]) -> dict[str, float]:
    return {name: interval.value for name, interval in sound_metrics(records, ConstantEmbedder()).items()}


def test_class_names_with_commas() -> None:
    target = ("Land principally occupied by agriculture, with significant areas of natural vegetation", "Pastures")
    record = answered("multilabel_classification", f"pastures, {target[0].lower()}", target)
    assert set(values([record]).values()) == {1.0}


def test_vqa_scores_by_question_type() -> None:
    found = values([answered("vqa", " Yes.", "yes", "presence"), answered("vqa", "3", "4", "count")])
    assert found == {
        "accuracy": 0.5,
        "F1 macro": 0.5,
        "accuracy count": 0.0,
        "F1 macro count": 0.0,
        "accuracy presence": 1.0,
        "F1 macro presence": 1.0,
    }


def test_box_scores_by_size_and_number() -> None:
    boxes = (Box((10.0, 10.0, 30.0, 30.0)), Box((60.0, 60.0, 90.0, 90.0)))
    task = "object_detection"
    found = values(
        [
            answered(task, "[[10, 10, 30, 30]]", boxes[:1], "small"),
            answered(task, "[[10, 10, 30, 30], [0, 0, 5, 5]]", boxes, "large"),
            answered(task, "nothing", boxes[:1], "small"),
        ]
    )
    assert found["F1@0.5"] == pytest.approx(4 / 7)
    assert found["F1@0.5 small"] == pytest.approx(2 / 3)
    assert found["F1@0.5 large"] == found["F1@0.5 multiple"] == pytest.approx(0.5)
    assert {f"AP@{t}{g}" for t in ("0.5", "0.25", "[.5:.95]") for g in ("", " small", " large")} <= found.keys()
    assert not any("medium" in name for name in found)


def test_captions_use_the_best_reference_and_skip_records_without_one() -> None:
    long = "two white ships lie near the long pier"
    records = [answered("image_captioning", long, ("forest", long)), answered("image_captioning", "x", ("", " "))]
    found = values(records)
    assert found["ROUGE-1"] == found["ROUGE-L"] == found["SBERT"] == found["BLEU"] == pytest.approx(1.0)
    assert found["METEOR (nltk)"] > 0.99
    assert values(records[1:]) == {}


def test_grounded_descriptions_have_box_and_text_scores() -> None:
    target = GroundedText("two ships lie near the pier", (Box((10.0, 10.0, 30.0, 30.0)),))
    found = values([answered("grounded_description", "two ships [[10, 10, 30, 30]] lie near the pier", target)])
    assert found["F1@0.5"] == found["ROUGE-1"] == pytest.approx(1.0)
