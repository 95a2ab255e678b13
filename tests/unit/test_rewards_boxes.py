"""Rewards of bounding boxes and grounded descriptions."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geovlm_ray.core.geometry import iou_matrix
from geovlm_ray.core.schema import Box, GroundedText
from geovlm_ray.data.records import scoring_record
from tests.unit.reward_examples import accuracy, boxes, example, score

Row = tuple[int, ...]
row = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 40), st.integers(1, 40)).map(
    lambda t: (t[0], t[1], t[0] + t[2], t[1] + t[3])
)
rows = st.lists(row, min_size=1, max_size=4)
REWARDS = ("detection", "detection_f1", "detection_best_iou", "detection_precision")
FAR = (500, 500, 510, 510)


def brute_force(predicted: list[Row], truth: list[Row], rotated: bool) -> float:
    """Largest IoU sum over all one-to-one matchings, divided by the larger box count."""
    fewer, more = sorted((predicted, truth), key=len)
    iou = iou_matrix(fewer, more, rotated)
    matchings = itertools.permutations(range(len(more)), len(fewer))
    return max(sum(iou[i, j] for i, j in enumerate(c)) for c in matchings) / len(more)


@settings(max_examples=60)
@given(rows, rows, st.booleans(), st.integers(-90, 90))
def test_matched_iou_equals_brute_force(predicted: list[Row], truth: list[Row], rotated: bool, angle: int) -> None:
    if rotated:
        truth = [(*b, angle) for b in truth]
    record = example("object_detection", boxes(*truth))
    expected = brute_force(predicted, truth, rotated)
    assert accuracy(json.dumps(predicted), record, rotated=rotated) == pytest.approx(expected)


@settings(max_examples=60)
@given(rows, rows, st.sampled_from(REWARDS), st.randoms(use_true_random=False))
def test_box_order_does_not_matter(predicted: list[Row], truth: list[Row], form: str, random: object) -> None:
    shuffled, shuffled_truth = list(predicted), list(truth)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    random.shuffle(shuffled_truth)  # type: ignore[attr-defined]
    value = accuracy(json.dumps(predicted), example("object_detection", boxes(*truth)), form)
    shuffled_value = accuracy(json.dumps(shuffled), example("object_detection", boxes(*shuffled_truth)), form)
    assert shuffled_value == pytest.approx(value, abs=1e-12)


@settings(max_examples=60)
@given(rows, rows, st.sampled_from(["[500, 500, 510, 510]", "[1, 2, 3]", "[nan, 0, 1, 1]", "[5, 5, 5, 5]"]))
def test_wrong_box_never_increases_the_reward(predicted: list[Row], truth: list[Row], wrong: str) -> None:
    record = example("object_detection", boxes(*truth))
    written = json.dumps(predicted)
    for form in REWARDS:
        assert accuracy(f"{written}[{wrong}]", record, form) <= accuracy(written, record, form)


@given(rows, st.sampled_from(REWARDS))
def test_ground_truth_scores_one(truth: list[Row], form: str) -> None:
    record = example("object_detection", boxes(*truth))
    assert accuracy(json.dumps(truth), record, form) == 1.0
    assert accuracy(json.dumps([(*b, 0) for b in truth]), record, form, rotated=True) == 1.0


def test_duplicate_and_grid_boxes_score_low() -> None:
    record = example("object_detection", boxes((10, 10, 30, 30), (50, 50, 80, 90)))
    honest = [(11, 11, 30, 30), (50, 52, 80, 90)]
    grid = [(x, y, x + 20, y + 20) for x in range(0, 100, 10) for y in range(0, 100, 10)]
    assert accuracy(json.dumps(honest), record) > 0.9
    assert accuracy(json.dumps(honest * 5), record) < 0.2
    assert accuracy(json.dumps(honest + grid), record) < 0.03
    assert accuracy(json.dumps(honest + grid), record, "detection_best_iou") > 0.9


def test_empty_ground_truth_requires_an_empty_answer() -> None:
    empty = example("object_detection", ())
    for form in REWARDS:
        assert accuracy("[]", empty, form) == 1.0
        assert accuracy("", empty, form) == 1.0
        assert accuracy("[[1, 2, 3, 4]]", empty, form) == 0.0
        assert accuracy("[[1, 2, 3]]", empty, form) == 0.0
    for none in ("There are no ships in the image.", "None.", "no objects found", "I cannot find any ships here."):
        assert accuracy(none, empty) == 1.0
        assert accuracy(none, example("object_detection", boxes((1, 2, 3, 4)))) == 0.0
    for other in ("There is a ship.", "I cannot see the image.", "No ships, but there is a plane."):
        assert score(other, empty).status == "unparseable"
    assert accuracy("[]", example("object_detection", boxes((1, 2, 3, 4)))) == 0.0


def test_f1_and_precision_use_an_iou_threshold() -> None:
    record = example("object_detection", boxes((0, 0, 10, 10), (20, 20, 30, 30)))
    predicted = "[[0, 0, 10, 8], [0, 0, 10, 9], [50, 50, 60, 60]]"
    assert accuracy(predicted, record, "detection_f1") == pytest.approx(2 / 5)
    assert accuracy(predicted, record, "detection_f1", tau=0.95) == 0.0
    assert accuracy(predicted, record, "detection_precision") == pytest.approx(2 / 3)
    assert accuracy("[[0, 0, 10, 8]]", record, min_iou=0.9) == 0.0


def test_angles_count_where_a_true_box_has_one() -> None:
    record = example("object_detection", boxes((0, 40, 100, 60, 90)))
    for rotated in ("auto", True, False):
        assert accuracy("[[40, 0, 60, 100]]", record, rotated=rotated) == pytest.approx(1.0)
        assert accuracy("[[0, 40, 100, 60, 90]]", record, rotated=rotated) == pytest.approx(1.0)
        assert accuracy("[[0, 40, 100, 60]]", record, rotated=rotated) < 0.2
    diagonal = example("object_detection", boxes((0, 40, 100, 60, 45)))
    envelope = "[[7.57, 7.57, 92.43, 92.43]]"
    assert accuracy(envelope, diagonal) == pytest.approx(0.278, abs=1e-3)
    assert accuracy(envelope, diagonal, rotated=False) == pytest.approx(1.0, abs=1e-3)
    horizontal = example("object_detection", boxes((0, 40, 100, 60)))
    assert accuracy("[[0, 40, 100, 60, 0]]", horizontal) == 1.0


def test_published_forms_ignore_angles_unless_rotated_is_set() -> None:
    record = example("object_detection", boxes((0, 40, 100, 60, 90)))
    assert accuracy("[[0, 40, 100, 60]]", record, preset="paper") == 1.0
    assert accuracy("[[40, 0, 60, 100]]", record, preset="paper") < 0.2
    assert accuracy("[[40, 0, 60, 100]]", record, preset="paper", rotated=True) == pytest.approx(1.0)


NOTATIONS = {
    "brackets": ("{} [0, 0, 10, 10], {} [20, 20, 30, 30]", "[[0, 0, 10, 10], [20, 20, 30, 30]]"),
    "geochat": ("<p>{}</p>{{<0><0><10><10>}} <p>{}</p>{{<20><20><30><30>}}", "{<0><0><10><10>}{<20><20><30><30>}"),
    "tagged": (
        "<ref>{}</ref><box>[[0, 0, 10, 10]]</box><ref>{}</ref><box>[[20, 20, 30, 30]]</box>",
        "<box>[[0, 0, 10, 10]]</box><box>[[20, 20, 30, 30]]</box>",
    ),
    "json": (
        '[{{"bbox_2d": [0, 0, 10, 10], "label": "{}"}}, {{"bbox_2d": [20, 20, 30, 30], "label": "{}"}}]',
        '[{"bbox_2d": [0, 0, 10, 10]}, {"bbox_2d": [20, 20, 30, 30]}]',
    ),
}
"""Two boxes with labels, and without, by dialect."""
TWO_CLASSES = (Box((0.0, 0.0, 10.0, 10.0), "destroyed"), Box((20.0, 20.0, 30.0, 30.0), "no-damage"))


@pytest.mark.parametrize("written", NOTATIONS)
@pytest.mark.parametrize("dialect", NOTATIONS)
def test_labels_cost_the_same_in_every_notation(written: str, dialect: str) -> None:
    record = example("object_detection", TWO_CLASSES, dialect=dialect)
    labelled, plain = NOTATIONS[written]
    assert accuracy(plain, record) == 0.5
    for first, second, value in (
        ("Destroyed", "no damage", 1.0),
        ("object", "object", 0.5),
        ("destroyed", "destroyed", 0.5),
        ("burnt", "burnt", 0.0),
        ("no-damage", "destroyed", 0.0),
    ):
        assert accuracy(labelled.format(first, second), record) == value


def test_one_class_that_the_question_names_needs_no_label() -> None:
    truth = (Box((0.0, 0.0, 10.0, 10.0), "ship"), Box((20.0, 20.0, 30.0, 30.0), "ship"))
    labelled, plain = NOTATIONS["json"]
    for question in ("Detect all ships.", ""):
        record = dataclasses.replace(example("object_detection", truth, labels=("ship", "plane")), question=question)
        assert accuracy(plain, record) == accuracy(labelled.format("ship", "ship"), record) == 1.0
        assert accuracy(labelled.format("plane", "ship"), record) == 0.5
    record = dataclasses.replace(record, question="Detect all objects and name them.")
    assert accuracy(plain, record) == 0.5


def test_prose_around_boxes_is_no_label() -> None:
    record = example("referred_object_detection", (Box((10.0, 10.0, 30.0, 30.0), "ship"),), labels=("ship", "plane"))
    for text in ("The ship is located at [10, 10, 30, 30].", "It is at [10, 10, 30, 30].", "Answer: [10, 10, 30, 30]"):
        assert accuracy(text, record) == 1.0
    for text in ("The plane is located at [10, 10, 30, 30].", "helicopter [10, 10, 30, 30]"):
        assert accuracy(text, record) == 0.0


def test_corners_may_be_in_any_order_in_truth_and_answer() -> None:
    right, inverted = [10, 10, 30, 40], [30, 40, 10, 10]
    for target in (right, inverted):
        line = {"id": 1, "task": "object_detection", "target": [target], "response": ""}
        record, _ = scoring_record(line)
        for answer in (right, inverted):
            assert accuracy(json.dumps([answer]), record) == 1.0


TRUTH = GroundedText("two ships on water", boxes((10, 10, 30, 30), (50, 50, 80, 90)))
GROUNDED = "two ships on water [[10, 10, 30, 30], [50, 50, 80, 90]]"


def test_grounded_description_requires_text_and_boxes() -> None:
    record = example("grounded_description", TRUTH)
    assert accuracy(GROUNDED, record) == 1.0
    for part in ("two ships on water", "[[10, 10, 30, 30], [50, 50, 80, 90]]"):
        assert accuracy(part, record) == 0.0
        assert accuracy(part, record, "grounded_description") == 0.5
    parts = score("two ships on water [[10, 10, 30, 30]]", record).components
    assert parts == {"text": 1.0, "boxes": 0.5}


def test_swapped_fact_lowers_the_grounded_description_score() -> None:
    record = example("grounded_description", TRUTH)
    assert accuracy(GROUNDED.replace("two", "three"), record) < 0.3
    assert accuracy(GROUNDED.replace("on water", "upon the water"), record) > 0.6
