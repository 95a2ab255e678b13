"""Consistency of the reasoning with the answer."""

from __future__ import annotations

import pytest

from geovlm_ray.core.schema import Box, Example, Target
from geovlm_ray.data.scenes import demonstration, scene_example
from geovlm_ray.evaluation.consistency import consistency
from geovlm_ray.evaluation.metrics.sound import AnsweredExample
from geovlm_ray.tasks.answers.grammar import parse_response


def check(task: str, target: Target, reasoning: str, answer: str) -> dict[str, bool]:
    return consistency(reasoning, AnsweredExample(answer, Example("1", task, ("i.png",), "?", target)))


@pytest.mark.parametrize(
    ("task", "target", "reasoning", "answer", "expected"),
    [
        ("scene_classification", ("Storage Tanks",), "I see storage tanks.", "storage tanks", {"objects": True}),
        ("scene_classification", ("Storage Tanks",), "I see a harbor.", "storage tanks", {"objects": False}),
        ("scene_classification", ("plane",), "an airplane", "plane", {"objects": True}),
        ("multilabel_classification", ("forest", "water"), "forest only", "forest, water", {"objects": False}),
        ("vqa", "yes", "two ships on water", "yes", {"yes or no": True}),
        ("vqa", "yes", "there is no ship", "yes", {"yes or no": False}),
        ("vqa", "no", "there is no ship", "no", {"yes or no": True}),
        ("vqa", "3", "three planes", "3", {"counts": True}),
        ("vqa", "3", "two planes", "3", {"counts": False}),
        ("vqa", "1", "one plane at the top", "1", {"counts": True}),
        ("vqa", "0", "no planes here", "0", {"counts": True}),
        ("vqa", "urban", "an urban area", "urban", {"objects": True}),
        ("vqa", "urban", "", "", {}),
        ("image_captioning", ("x",), "two ships on water", "two ships on water", {"objects": True, "counts": True}),
        ("image_captioning", ("x",), "three ships on water", "two ships", {"objects": True, "counts": False}),
        ("change_captioning", ("x",), "left changed", "a house built at the left", {"objects": False, "places": True}),
    ],
)  # fmt: skip
def test_reasoning_and_text_answer(
    task: str, target: Target, reasoning: str, answer: str, expected: dict[str, bool]
) -> None:
    assert check(task, target, reasoning, answer) == expected


@pytest.mark.parametrize(
    ("reasoning", "boxes", "expected"),
    [
        ("one ship at the left", "[[0, 40, 20, 60]]", {"counts": True, "places": True}),
        ("one ship at the right", "[[0, 40, 20, 60]]", {"counts": True, "places": False}),
        ("two ships at the left", "[[0, 40, 20, 60]]", {"counts": False, "places": True}),
        ("one ship at the center", "[[45, 45, 60, 60]]", {"counts": True, "places": True}),
        ("two ships , left and top", "[[0, 40, 20, 60], [80, 80, 99, 99]]", {"counts": True, "places": False}),
    ],
)
def test_reasoning_and_box_answer(reasoning: str, boxes: str, expected: dict[str, bool]) -> None:
    assert check("object_detection", (Box((0, 40, 20, 60)),), reasoning, boxes) == expected


def test_answer_without_boxes_is_not_checked() -> None:
    example = scene_example("visual_grounding", 5, 0)
    assert check("visual_grounding", example.target, "", "no boxes") == {}


@pytest.mark.parametrize("task", ["object_detection", "visual_grounding", "image_captioning", "scene_classification"])
def test_ideal_responses_are_consistent(task: str) -> None:
    for i in range(50):
        example = scene_example(task, 5, i)
        parsed = parse_response(demonstration(example))
        assert parsed is not None
        assert parsed.think
        kinds = consistency(parsed.think, AnsweredExample(parsed.answer, example))
        assert kinds
        assert all(kinds.values())
