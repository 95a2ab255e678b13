"""Ideal responses earn the full reward for every record."""

from __future__ import annotations

from dataclasses import replace

import pytest

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example, GroundedText, Rotated, Target, target_boxes
from geovlm_ray.data.answer_format import AnswerFormat
from geovlm_ray.data.answers import THINK_MODES, Reasoning, answer_text, response_text
from geovlm_ray.data.config import DataConfig
from geovlm_ray.data.scenes import demonstration, scene_example
from geovlm_ray.data.sources import open_stream
from geovlm_ray.rewards import RewardConfig, score_batch
from geovlm_ray.tasks import TASKS
from tests.rs import RS, needs_rs
from tests.unit.reward_examples import SAMPLES, boxes, embedder, example

MODES: tuple[Reasoning, ...] = ("empty", "none")


def totals(records: list[Example], mode: Reasoning = "empty", choice: int = 0, **settings: object) -> list[float]:
    """Total default reward of each ideal response."""
    config = RewardConfig(think=THINK_MODES[mode], **settings)  # type: ignore[arg-type]
    rotated = config.rotated
    responses = [response_text(r, mode, choice, rotated=rotated) for r in records]
    return [score.total for score in score_batch(responses, records, config, embedder())]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", TASKS)
def test_ideal_responses_to_synthetic_scenes_earn_the_full_reward(task: str, mode: Reasoning) -> None:
    scenes = [scene_example(task, 3, k) for k in range(6)]
    assert totals(scenes, mode) == pytest.approx([2.0] * 6)
    # The same records from a dataset that provides only targets.
    records = [replace(s, dataset="mine") for s in scenes]
    for choice in range(3):
        assert totals(records, mode, choice) == pytest.approx([2.0] * 6)


@needs_rs
@pytest.mark.parametrize("mode", MODES)
def test_ideal_responses_to_real_records_earn_the_full_reward(mode: Reasoning) -> None:
    stream = open_stream(DataConfig(source="samples", path=str(RS / "samples.jsonl")))
    records = [stream.of_task(task, k) for task in stream.tasks for k in range(stream.count(task) or 0)]
    assert len(records) == 46
    for choice in range(2):
        assert totals(records, mode, choice) == pytest.approx([2.0] * 46)


def test_scenes_keep_their_reasoning_unless_the_mode_is_none() -> None:
    scene = scene_example("object_detection", 3, 1)
    assert response_text(scene) == demonstration(scene)
    assert response_text(scene, "none") == f"<answer>{answer_text(scene)}</answer>"


def test_missing_reasoning_becomes_empty_think_tags() -> None:
    record = example("vqa", "yes")
    with_reasoning = replace(record, reasoning=" I see a ship. ")
    assert response_text(record) == "<think></think><answer>yes</answer>"
    assert response_text(with_reasoning) == "<think>I see a ship.</think><answer>yes</answer>"
    assert response_text(with_reasoning, "none") == response_text(record, "none") == "<answer>yes</answer>"


@pytest.mark.parametrize(
    ("task", "target", "answer"),
    [
        ("multilabel_classification", ("Beaches, dunes, sands", "Pastures"), "Beaches, dunes, sands, Pastures"),
        ("object_detection", boxes((1, 2, 30, 40, 45), (-3, 5, 120, 70)), "[[1, 2, 30, 40, 45], [-3, 5, 120, 70]]"),
        ("object_detection", boxes((1, 2, 30, 40, 180)), "[[1, 2, 30, 40, 180]]"),
        ("object_detection", (), "[]"),
        ("object_detection", (Box((1, 2, 3, 4), "a"), Box((5, 6, 7, 8), "a")), "[[1, 2, 3, 4], [5, 6, 7, 8]]"),
        ("object_detection", (Box((1, 2, 3, 4), "a"), Box((5, 6, 7, 8), "b")), "a [1, 2, 3, 4], b [5, 6, 7, 8]"),
        ("grounded_description", GroundedText("a ship in [1990]", boxes((1, 2, 3, 4))), "a ship in [[1, 2, 3, 4]]"),
        (
            "grounded_description",
            GroundedText("<ref>2 ships </ref> <box>[[[1, 2, 30, 40, 0]]]</box>  at sea.", boxes((1, 2, 30, 40, 0))),
            "<ref>2 ships </ref> <box>[[[1, 2, 30, 40, 0]]]</box> at sea.",
        ),
    ],
)
def test_answer_follows_the_format_of_the_instruction(task: str, target: Target, answer: str) -> None:
    record = example(task, target)
    assert answer_text(record) == answer
    assert totals([record]) == [2.0]


def test_coordinates_are_rounded_to_integers_unless_the_box_is_too_small() -> None:
    large = example("visual_grounding", boxes((10.4, 20.6, 33.3, 44.9)))
    assert answer_text(large) == "[[10, 21, 33, 45]]"
    small = example("object_detection", boxes((1.2, 5.3, 1.6, 5.9), (7.123, 8, 7.126, 8.004), (5.5, 5.5, 5.5, 5.5)))
    assert all(total > 1.9 for total in totals([large, small]))


@pytest.mark.parametrize("dialect", ["brackets", "geochat", "tagged", "json", "polygons"])
def test_boxes_use_the_dialect_of_the_record(dialect: str) -> None:
    record = example("object_detection", boxes((1, 2, 30, 40), (50, 60, 70, 80)), dialect=dialect)
    assert totals([record, replace(record, target=())]) == [2.0, 2.0]


def test_angles_are_kept_if_rotated_iou_is_used() -> None:
    record = example("referred_object_detection", boxes((10, 20, 60, 30, 90)))
    assert answer_text(record) == answer_text(record, rotated=True) == "[[10, 20, 60, 30, 90]]"
    assert answer_text(record, rotated=False) == "[[30, 0, 40, 50]]"


TARGETS: dict[str, Target] = {
    "one": boxes((10, 20, 60, 40)),
    "several": boxes((10, 20, 60, 40), (50, 60, 70, 80)),
    "rotated": boxes((10, 20, 60, 40, 30), (50, 60, 70, 80, -10), (1, 2, 3, 4)),
    "right angle": boxes((10, 20, 60, 40, 90)),
    "one class": (Box((10, 20, 60, 40), "ship"), Box((50, 60, 70, 80), "ship")),
    "two classes": (Box((10, 20, 60, 40), "large ship"), Box((50, 60, 70, 80, 30), "plane")),
    "none": (),
}


@pytest.mark.parametrize("rotated", ["auto", True, False])
@pytest.mark.parametrize("dialect", ["brackets", "geochat", "tagged", "json", "polygons"])
@pytest.mark.parametrize("task", ["object_detection", "referred_object_detection", "visual_grounding"])
def test_ideal_boxes_earn_the_full_reward(task: str, dialect: str, rotated: Rotated) -> None:
    for target in TARGETS.values():
        for question in ("Detect all objects.", "Where are the ships?"):
            record = replace(example(task, target, dialect=dialect, labels=("ship", "plane")), question=question)
            assert totals([record], rotated=rotated) == pytest.approx([2.0], abs=0.05 if rotated is False else 1e-9)


@pytest.mark.parametrize("dialect", ["brackets", "geochat", "tagged", "json"])
def test_ideal_grounded_descriptions_earn_the_full_reward(dialect: str) -> None:
    for target in (TARGETS["several"], TARGETS["rotated"], TARGETS["two classes"]):
        text = GroundedText("a large ship beside a white plane", target)  # type: ignore[arg-type]
        assert totals([example("grounded_description", text, dialect=dialect)]) == pytest.approx([2.0])


def test_boxes_in_grounded_text_are_converted_to_the_answer_frame() -> None:
    target = GroundedText("a ship [[100, 200, 300, 400]] at sea", boxes((10, 20, 30, 40)))
    record = example("grounded_description", target, frame=Frame("percent"))
    assert answer_text(record) == "a ship [[10, 20, 30, 40]] at sea"


def test_choice_cycles_through_nonempty_captions() -> None:
    record = example("image_captioning", ("first", " ", "second"))
    assert [answer_text(record, choice) for choice in range(4)] == ["first", "second", "first", "second"]


@pytest.mark.parametrize(
    "record",
    [
        example("vqa", " \n"),
        example("scene_classification", ()),
        example("image_captioning", ("", " ")),
        example("grounded_description", GroundedText("[[1, 2, 3, 4]]", boxes((1, 2, 3, 4)))),
        example("vqa", "yes</answer><answer>no"),
        example("vqa", "yes", reasoning="<think>twice</think>"),
    ],
)
def test_record_without_a_usable_target_is_rejected(record: Example) -> None:
    with pytest.raises(DataError, match="record '1': "):
        response_text(record)


def test_samples_of_every_task_earn_the_full_reward() -> None:
    assert totals([example(task, SAMPLES[task][0]) for task in TASKS]) == pytest.approx([2.0] * 12)


@pytest.mark.parametrize("dialect", ["brackets", "json", "geochat", "tagged"])
@pytest.mark.parametrize("frame", [Frame("permille"), Frame("pixel", 640, 448)], ids=["permille", "pixel"])
def test_ideal_responses_to_scenes_in_any_format_earn_the_full_reward(dialect: str, frame: Frame) -> None:
    answers = AnswerFormat(frame, dialect)
    for task in ("object_detection", "referred_object_detection", "visual_grounding", "grounded_description"):
        scenes = [answers.of(scene_example(task, 3, k)) for k in range(6)]
        assert totals(scenes) == pytest.approx([2.0] * 6, abs=0.05)
        assert all(max(box.coords) > 100 for scene in scenes for box in target_boxes(scene.target))
