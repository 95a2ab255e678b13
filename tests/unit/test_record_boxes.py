"""Boxes of chat records and questions: their unit, determined, given or refused, their dialect, and none of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import target_boxes
from tests.unit.chat_records import PIXELS, convert, messages, only
from tests.unit.conversion import (
    run_convert,
    write_json,
    write_scene,
)


def grounding(*boxes: list[float], **fields: Any) -> list[dict[str, Any]]:
    """Records with one box each, written in brackets."""
    return [{"image": "a.png", "problem": "Where is it?", "answer": json.dumps(box), **fields} for box in boxes]


@pytest.mark.parametrize(
    ("boxes", "frame", "stored"),
    [
        ([[30, 25, 60, 50]], "percent", (30, 25, 60, 50)),
        ([[60, 40, 120, 80]], "pixel", (60, 40, 120, 80)),
        ([[300, 250, 600, 500]], "permille", (300, 250, 600, 500)),
        ([[0.3, 0.25, 0.6, 0.5]], "fraction", (30, 25, 60, 50)),
        ([[60, 40, 12, 80]] * 3 + [[60, 40, 120, 80]], "pixel", (12, 40, 60, 80)),
    ],
)
def test_the_unit_of_boxes_is_determined_from_all_of_them(
    boxes: list[list[float]], frame: str, stored: tuple[float, ...], tmp_path: Path
) -> None:
    outcome = convert(tmp_path, grounding(*boxes), "qa")
    example = outcome.rows[0].example
    assert target_boxes(example.target)[0].coords == pytest.approx(stored)
    assert example.frame == (PIXELS if frame == "pixel" else Frame("permille" if frame == "permille" else "percent"))
    assert outcome.card["options"]["frame"] == frame
    (note,) = outcome.card["notes"]
    assert note.startswith(f"frame={frame}: found boxes in {len(boxes)} of the first records, with coordinates up to ")


def test_boxes_that_stay_in_a_corner_of_large_images_are_percent(tmp_path: Path) -> None:
    write_scene(tmp_path / "large" / "a.png", (1000, 1000))
    answers = [f'[{{"bbox_2d": [{k}, 20, {60 + k}, 90], "label": "shed"}}]' for k in range(12)]
    records = [{"image": "a.png", "problem": "Where?", "answer": answer} for answer in answers]
    outcome = run_convert("qa", write_json(tmp_path / "large" / "r.jsonl", records), tmp_path / "out")
    assert outcome.card["options"]["frame"] == "percent"
    assert (
        "in pixel all would lie in a corner; if they are not, give frame=permille or frame=pixel"
        in (outcome.card["notes"][0])
    )
    few = run_convert("qa", write_json(tmp_path / "large" / "r.jsonl", records[:1]), tmp_path / "few")
    assert few.card["options"]["frame"] == "pixel"


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        ("percent", "found boxes in 1 of the first records, with coordinates up to 120; frame=permille or frame=pixel"),
        ("fraction", "with coordinates up to 120"),
        ("metres", "option frame: expected auto or percent or permille or pixel or fraction, found 'metres'"),
    ],
)
def test_a_given_unit_that_cannot_be_true_is_an_error(frame: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        convert(tmp_path, grounding([60, 40, 120, 80]), "qa", frame=frame)
    assert found in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_box_beyond_its_image_is_quarantined_and_does_not_change_the_unit(tmp_path: Path) -> None:
    outcome = convert(tmp_path, grounding(*[[60, 40, 120, 80]] * 60, [60, 40, 700, 80]), "qa")
    assert len(outcome.rows) == 60
    assert "expected coordinates inside the image, 200 x 160 in pixel, found up to 700, 80" in outcome.reasons[61]


@pytest.mark.parametrize(
    ("form", "boxes", "frame", "bad"),
    [
        ("objects", [[60, 40, 120, 80]] * 9 + [[60, 40, 320, 80]], "pixel", 1),
        ("objects", [[60, 40, 120, 80]] * 3 + [[60, 40, 320, 80]] * 2, "pixel", 2),
        ("objects", [[600, 400, 900, 800]] * 5, "permille", 0),
        ("bbox_2d", [[60, 40, 120, 80]] * 9 + [[60, 40, 320, 80]], "pixel", 1),
        ("brackets", [[60, 40, 90, 80]] * 9 + [[60, 40, 130, 80]], "percent", 1),
    ],
)
def test_few_wrong_boxes_do_not_change_the_usual_unit_of_a_small_source(
    form: str, boxes: list[list[float]], frame: str, bad: int, tmp_path: Path
) -> None:
    answers = {"objects": "<bbox>", "bbox_2d": '[{"bbox_2d": %s, "label": "shed"}]', "brackets": "%s"}
    records: list[dict[str, Any]] = []
    for box in boxes:
        answer = answers[form] % json.dumps(box) if "%" in answers[form] else answers[form]
        objects = {"objects": {"ref": [], "bbox": [box]}} if form == "objects" else {}
        records.append({"messages": messages("<image>Find the shed", answer), "images": ["a.png"], **objects})
    outcome = convert(tmp_path, records)
    assert outcome.card["options"]["frame"] == frame
    assert list(outcome.reasons) == list(range(len(boxes) - bad + 1, len(boxes) + 1))


def test_pixels_without_images_need_a_given_unit(tmp_path: Path) -> None:
    source = write_json(tmp_path / "in" / "r.jsonl", grounding([60, 40, 120, 80]))
    with pytest.raises(DataError, match="no readable image for 1 of them; give frame="):
        run_convert("qa", source, tmp_path / "out")
    assert only(run_convert("qa", source, tmp_path / "b", frame="permille")).frame == Frame("permille")


def test_boxes_on_an_image_with_exif_rotation_are_refused(tmp_path: Path) -> None:
    write_scene(tmp_path / "in" / "a.jpg", orientation=6)
    record = {"image": "a.jpg", "problem": "Where is it?", "answer": "[60, 40, 120, 80]"}
    outcome = run_convert("qa", write_json(tmp_path / "in" / "r.jsonl", [record]), tmp_path / "out", frame="permille")
    assert "expected an upright image" in outcome.reasons[1]
    text = record | {"answer": "yes"}
    assert only(run_convert("qa", write_json(tmp_path / "in" / "r.jsonl", [text]), tmp_path / "text")).target == "yes"


def test_the_dialect_is_an_option(tmp_path: Path) -> None:
    assert only(convert(tmp_path, grounding([60, 40, 120, 80]), "qa", dialect="json")).dialect == "json"
    with pytest.raises(DataError, match="option dialect: expected auto or brackets"):
        convert(tmp_path / "b", grounding([60, 40, 120, 80]), "qa", dialect="xml")


@pytest.mark.parametrize(
    ("question", "answer", "task"),
    [
        ("Detect all ships.", "There are no ships.", "object_detection"),
        ("Detect all ships.", "None", "object_detection"),
        ("Detect all ships.", "[]", "object_detection"),
        ("Find every ship in the image.", "No ships were found.", "object_detection"),
        ("Where are the ships?", "There are none.", "object_detection"),
        ("Give the bounding boxes of the ships, if any.", "none", "object_detection"),
        ("Identify all ships in the area.", "None.", "object_detection"),
        ("List all ships with their positions.", "None", "object_detection"),
        ("Identify the land cover.", "Nothing visible", "vqa"),
        ("[refer] the ship", "There is no ship.", "referred_object_detection"),
        ("Can you detect any ships?", "No.", "vqa"),
        ("Find the number of ships.", "0", "vqa"),
        ("How many ships can you detect?", "None", "vqa"),
        ("Identify the type of the ship.", "None", "vqa"),
        ("What lies at the pier?", "Nothing", "vqa"),
    ],
)
def test_a_denial_answers_a_question_for_boxes_with_no_boxes(
    question: str, answer: str, task: str, tmp_path: Path
) -> None:
    example = only(convert(tmp_path, [{"image": "a.png", "problem": question, "answer": answer}], "qa"))
    assert (example.task, example.target) == (task, answer if task == "vqa" else ())
