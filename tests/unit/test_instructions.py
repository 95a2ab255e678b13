"""Instructions of prompts: notation and unit of boxes, class names, and the dataset's own question."""

from __future__ import annotations

import re

import pytest

from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example, Target
from geovlm_ray.data.answer_format import AnswerFormat
from geovlm_ray.data.answers import answer_text
from geovlm_ray.data.config import DataConfig
from geovlm_ray.data.resolution import Resolution
from geovlm_ray.model.answer_format import answer_format
from geovlm_ray.model.config import PromptConfig
from geovlm_ray.model.families import FAMILIES
from geovlm_ray.tasks import TASKS

SHIP = (Box((10, 20, 30, 40), "ship"),)
CLASSES = ("beach", "harbor", "river")


def prompt(
    task: str, question: str, target: Target = "", labels: tuple[str, ...] = (), answers: AnswerFormat | None = None,
    **settings: int,
) -> str:  # fmt: skip
    example = Example("a", task, ("scene:vqa:0:0:0",), question, target, labels=labels)
    return PromptConfig(**settings).question((answers or AnswerFormat()).of(example))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (
            AnswerFormat(Frame("percent"), "brackets"),
            "[[x1, y1, x2, y2]]: top left and bottom right corner, in percent of the image's width and height.",
        ),
        (
            AnswerFormat(Frame("permille"), "json"),
            '[{"bbox_2d": [x1, y1, x2, y2], "label": "name"}]: top left and bottom right corner, in thousandths of the '
            "image's width and height.",
        ),
        (
            AnswerFormat(Frame("pixel", 640, 480), "geochat"),
            "{<x1><y1><x2><y2>}: top left and bottom right corner, in pixels of an image of 640 x 480 pixels.",
        ),
        (
            AnswerFormat(Frame("percent"), "tagged"),
            "<ref>name</ref><box>[[x1, y1, x2, y2]]</box>: top left and bottom right corner, in percent of the "
            "image's width and height.",
        ),
    ],
)
def test_instruction_states_notation_corners_and_unit_of_boxes(answers: AnswerFormat, expected: str) -> None:
    text = prompt("object_detection", "Find all ships.", SHIP, answers=answers)
    assert text == f"Find all ships.\nAnswer with boxes as {expected}"


def test_rotated_boxes_are_asked_for_with_their_angle() -> None:
    text = prompt("object_detection", "Find all ships.", (Box((10, 20, 30, 40, 45)),))
    assert "[[x1, y1, x2, y2, angle]]" in text
    assert "clockwise by the angle in degrees" in text


def test_class_names_of_boxes_are_asked_for_unless_the_question_names_one() -> None:
    labels = ("ship", "storage-tank")
    assert "name [x1, y1, x2, y2]" in prompt("object_detection", "Find all objects.", SHIP, labels)
    assert "name [x1, y1, x2, y2]" in prompt("object_detection", "Find ships and storage tanks.", SHIP, labels)
    assert "[[x1, y1, x2, y2]]" in prompt("object_detection", "Find all ships.", SHIP, labels)
    assert "[[x1, y1, x2, y2]]" in prompt("object_detection", "Find all objects.", SHIP, ("ship",))


def test_classes_are_listed_up_to_a_limit_and_not_twice() -> None:
    assert prompt("scene_classification", "What is it?", ("river",), CLASSES) == (
        "What is it?\nAnswer with the class name. Classes: beach; harbor; river."
    )
    assert "Classes:" not in prompt("scene_classification", "What is it?", ("river",), CLASSES, list_classes=2)
    asked = "Is it beach, harbor or river?"
    assert prompt("scene_classification", asked, ("river",), CLASSES) == f"{asked}\nAnswer with the class name."


@pytest.mark.parametrize(
    ("task", "question"),
    [
        ("image_captioning", "Describe the image in detail."),
        ("image_captioning", "Describe the image in two sentences."),
        ("change_captioning", "Briefly, what has changed?"),
        ("vqa", "How many ships are there? Answer with one word."),
        ("vqa", "Is there a ship? Answer yes or no."),
        ("vqa", "Which colours do the roofs have? Return a JSON object."),
        ("multilabel_classification", "What is shown? Give a bulleted list."),
        ("multilabel_classification", "What is shown? Return a Python list of names."),
    ],
)
def test_instruction_does_not_contradict_a_question_that_states_its_form(task: str, question: str) -> None:
    assert prompt(task, question, ("a",)) == question
    assert prompt(task, question, ("a",), caption_words=30) == question


def test_captions_of_a_configured_length() -> None:
    assert prompt("image_captioning", "Describe the image.", ("a",)).endswith("Answer with one sentence.")
    long = prompt("image_captioning", "Describe the image.", ("a",), caption_words=50)
    assert long == "Describe the image.\nAnswer with about 50 words."


def test_notation_in_a_question_gives_way_to_the_configured_one() -> None:
    question = "Find the ships. Include bounding boxes of the form [x_min, y_min, x_max, y_max] in your response."
    text = prompt("object_detection", question, SHIP, answers=AnswerFormat(Frame("permille"), "json"))
    assert text.startswith('Find the ships.\nAnswer with boxes as [{"bbox_2d": ')
    assert "x_min" not in text


@pytest.mark.parametrize(
    ("question", "kept"),
    [
        (
            "Give the box of the white ship at the pier in the format [x1, y1, x2, y2]. Be precise.",
            "Give the box of the white ship at the pier. Be precise.",
        ),
        ("Provide the box of the red car, in the form [xmin, ymin, xmax, ymax].", "Provide the box of the red car."),
        ("Locate the ship. The format is [x1, y1, x2, y2].", "Locate the ship."),
        ("Locate every ship, output its bbox coordinates using JSON format.", "Locate every ship."),
        ("Detect all ships and return a JSON list with keys bbox_2d and label.", "Detect all ships."),
        ('Report the planes in JSON like {"bbox_2d": [x1, y1, x2, y2], "label": "plane"}.', "Report the planes."),
        ("Where are the tanks? Coordinates should be normalized to 0-1000.", "Where are the tanks?"),
        ("Where is the ship? Give its box in absolute pixel coordinates.", "Where is the ship?"),
        ("Give me the location of the ship in percent of the image.", "Give me the location of the ship."),
        ("Return the boxes of all ships as a list of [x1, y1, x2, y2].", "Return the boxes of all ships."),
        ("Return the boxes of all ships as xmin, ymin, xmax, ymax.", "Return the boxes of all ships."),
        ("Return the box of the ship in YOLO format.", "Return the box of the ship."),
        ("Where is the ship? Output the box as <box>(x1,y1),(x2,y2)</box>.", "Where is the ship?"),
        ("Find the vehicle (red, on the left side).", "Find the vehicle (red, on the left side)."),
        ('Find the building with the name "Hotel".', 'Find the building with the name "Hotel".'),
        (
            "Find the ships in the form of a cross,\nand the pier.",
            "Find the ships in the form of a cross,\nand the pier.",
        ),
        ("Give the coordinates in JSON.", "Give the coordinates."),
        (
            "This is a port. Give the location of each object in pixels.",
            "This is a port. Give the location of each object.",
        ),
        ("Aerial image. List the coordinates of all objects.", "Aerial image. List the coordinates of all objects."),
    ],
)
def test_what_a_question_asks_for_stays_when_its_notation_goes(question: str, kept: str) -> None:
    assert prompt("visual_grounding", question, SHIP).startswith(f"{kept}\n")


def test_unit_of_a_box_in_a_question_is_stated() -> None:
    text = prompt("region_captioning", "What is in [10, 20, 30, 40]?", ("a",), answers=AnswerFormat(Frame("permille")))
    assert text.startswith("What is in [100, 200, 300, 400]?\n")
    assert text.endswith("Boxes are in thousandths of the image's width and height.")


def test_auto_is_what_the_family_was_pretrained_on() -> None:
    resolution, qwen = Resolution("fixed", 448, 28, 1, 10**6, 4), FAMILIES["qwen2_5_vl"]
    example = Example("a", "object_detection", ("scene:vqa:0:0:0",), "Find.", SHIP)
    found = answer_format(DataConfig(), qwen, resolution).of(example)
    assert (found.dialect, found.frame) == ("json", Frame("pixel", 448, 448))
    assert found.target[0].coords == pytest.approx((44.8, 89.6, 134.4, 179.2))  # type: ignore[union-attr]
    fixed = answer_format(DataConfig(frame="permille"), qwen, resolution).of(example)
    assert (fixed.dialect, fixed.frame) == ("json", Frame("permille"))
    as_stored = answer_format(DataConfig(frame="dataset", dialect="dataset"), qwen, resolution).of(example)
    assert as_stored == example


@pytest.mark.parametrize("model_type", FAMILIES)
def test_auto_of_every_family(model_type: str) -> None:
    resolution = Resolution("fixed", 448, 28, 1, 10**6, 4)
    example = Example("a", "object_detection", ("scene:vqa:0:0:0",), "Find.", SHIP)
    found = answer_format(DataConfig(), FAMILIES[model_type], resolution).of(example)
    expected = {"qwen2_vl": ("tagged", Frame("permille")), "qwen2_5_vl": ("json", Frame("pixel", 448, 448))}
    assert (found.dialect, found.frame) == expected.get(model_type, ("json", Frame("permille")))


def test_instructions_of_tasks_without_boxes_name_no_placeholder() -> None:
    for task in TASKS.values():
        assert ("{boxes}" in task.instruction) == (task.target_kind in ("boxes", "grounded"))


@pytest.mark.parametrize("dialect", ["brackets", "json", "geochat", "tagged"])
@pytest.mark.parametrize("label", ["ship", None])
def test_ideal_answer_has_the_notation_of_the_instruction(dialect: str, label: str | None) -> None:
    box = (Box((10, 20, 30, 40), label),)
    record = AnswerFormat(None, dialect).of(Example("a", "object_detection", (), "Find all ships.", box))
    notation = PromptConfig().question(record).partition(" as ")[2].partition(":  top")[0].partition(": top")[0]
    pattern = re.escape(notation)
    for name in ("x1", "y1", "x2", "y2"):
        pattern = pattern.replace(name, r"\d+")
    assert re.fullmatch(pattern.replace("name", "ship"), answer_text(record))
