"""Conversion of chat records and of questions with answers, in every container, and the unit of their boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, GroundedText, target_boxes
from tests.unit.chat_records import PIXELS, SHED, convert, messages, only
from tests.unit.conversion import (
    CONTAINERS,
    dialogue,
    run_convert,
    write_container,
    write_scene,
)

CHAT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "LLaMA-Factory": (
        {"messages": messages("<image>How many sheds stand here?", "1"), "images": ["a.png"]},
        {"task": "vqa", "question": "How many sheds stand here?", "target": "1", "frame": Frame()},
    ),
    "ShareGPT": (
        {"conversations": dialogue("<image>\nIs there a shed?", "yes"), "images": ["a.png"]},
        {"task": "vqa", "question": "Is there a shed?", "target": "yes"},
    ),
    "TRL parts": (
        {
            "messages": messages(
                [{"type": "image", "text": None}, {"type": "text", "text": "Describe the image."}],
                [{"type": "text", "text": "A shed in a field."}],
            ),
            "images": ["a.png"],
        },
        {"task": "image_captioning", "question": "Describe the image.", "target": ("A shed in a field.",)},
    ),
    "TRL prompt and completion": (
        {
            "prompt": [{"role": "user", "content": "What is it?"}],
            "completion": [{"role": "assistant", "content": "a shed"}],
            "images": ["a.png"],
        },
        {"task": "vqa", "question": "What is it?", "target": "a shed"},
    ),
    "ms-swift": (
        {
            "messages": messages("<image>Find <ref-object>", "<bbox>"),
            "images": ["a.png"],
            "objects": {"ref": ["the pale shed"], "bbox": [[60, 40, 120, 80]]},
        },
        {"task": "visual_grounding", "question": "Find the pale shed", "target": (SHED,), "frame": PIXELS},
    ),
    "ms-swift with names": (
        {
            "messages": messages("<image>Find all objects", "<ref-object><bbox><ref-object><bbox>"),
            "images": ["a.png"],
            "objects": {"ref": ["shed", "tree"], "bbox": [[60, 40, 120, 80], [150, 150, 10, 100]]},
        },
        {
            "task": "object_detection",
            "target": (Box(SHED.coords, "shed"), Box((10, 100, 150, 150), "tree")),
            "frame": PIXELS,
            "dialect": "tagged",
        },
    ),
    "ms-swift with a sentence": (
        {
            "messages": messages("<image>What is here?", "a <ref-object><bbox> lies beside a <ref-object><bbox>"),
            "images": ["a.png"],
            "objects": {"ref": ["shed", "tree"], "bbox": [[60, 40, 120, 80], [10, 100, 150, 150]]},
        },
        {
            "task": "grounded_description",
            "target": GroundedText(
                "a <ref>shed</ref><box>[[60.0, 40.0, 120.0, 80.0]]</box> lies beside a "
                "<ref>tree</ref><box>[[10.0, 100.0, 150.0, 150.0]]</box>",
                (Box(SHED.coords, "shed"), Box((10, 100, 150, 150), "tree")),
            ),
            "frame": PIXELS,
        },
    ),
    "a sentence around one named box": (
        {
            "messages": messages("<image>Locate the shed", "The <ref-object><bbox> is here."),
            "images": ["a.png"],
            "objects": {"ref": ["shed"], "bbox": [[60, 40, 120, 80]]},
        },
        {"task": "visual_grounding", "target": (Box(SHED.coords, "shed"),), "frame": PIXELS},
    ),
    "ms-swift in JSON": (
        {
            "messages": messages("<image>Detect it", '[{"bbox_2d": <bbox>, "label": "<ref-object>"}]'),
            "images": ["a.png"],
            "objects": {"ref": ["shed"], "bbox": [[60, 40, 120, 80]]},
        },
        {"task": "visual_grounding", "target": (Box(SHED.coords, "shed"),), "frame": PIXELS, "dialect": "json"},
    ),
    "Qwen grounding": (
        {
            "images": ["a.png"],
            "conversations": dialogue(
                "<image>Detect all sheds, report bbox coordinates in JSON format.",
                'Here:\n```json\n[{"bbox_2d": [60, 40, 120, 80], "label": "shed"}]\n```',
            ),
        },
        {
            "task": "object_detection",
            "question": "Detect all sheds, report bbox coordinates in JSON format.",
            "target": (Box(SHED.coords, "shed"),),
            "frame": PIXELS,
            "dialect": "json",
        },
    ),
    "pixels in brackets": (
        {"images": ["a.png"], "conversations": dialogue("<image>Give the box of the shed.", "[60, 40, 120, 80]")},
        {"task": "visual_grounding", "target": (SHED,), "frame": PIXELS, "dialect": "brackets"},
    ),
    "Qwen2-VL tokens": (
        {
            "images": ["a.png"],
            "messages": messages(
                "Find the shed",
                "<|object_ref_start|>shed<|object_ref_end|><|box_start|>(300,250),(600,500)<|box_end|>",
            ),
        },
        {
            "task": "visual_grounding",
            "target": (Box((300, 250, 600, 500), "shed"),),
            "frame": Frame("permille"),
            "dialect": "tagged",
        },
    ),
    "a box in the question": (
        {"images": ["a.png"], "messages": messages("[identify] What is at [60, 40, 120, 80]?", "a shed")},
        {
            "task": "region_captioning",
            "question": "[identify] What is at [60, 40, 120, 80]?",
            "target": ("a shed",),
            "frame": PIXELS,
        },
    ),
    "grounded description": (
        {
            "images": ["a.png"],
            "messages": messages(
                "Describe the image and where everything is",
                "There is <ref>a shed</ref><box>[[300, 250, 600, 500]]</box> in the upper half of the wide field.",
            ),
        },
        {
            "task": "grounded_description",
            "target": GroundedText(
                "There is <ref>a shed</ref><box>[[300, 250, 600, 500]]</box> in the upper half of the wide field.",
                (Box((300, 250, 600, 500), "a shed"),),
            ),
            "frame": Frame("permille"),
        },
    ),
}


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("form", CHAT)
def test_chat_records_of_every_form_and_container(form: str, kind: str, tmp_path: Path) -> None:
    record, expected = CHAT[form]
    write_scene(tmp_path / "in" / "a.png")
    outcome = run_convert("chat", write_container(tmp_path / "in", [record], kind), tmp_path / "out")
    example = only(outcome)
    assert {key: getattr(example, key) for key in expected} == expected
    is_embedded = kind in ("shards", "arrow")
    assert example.split == ("test" if is_embedded else "train")
    assert example.images == ("a.png",) or (is_embedded and (tmp_path / "out" / example.images[0]).is_file())
    assert outcome.counts.unread == {}


QA: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "EasyR1": (
        {"images": ["a.png"], "problem": "<image>How many sheds?", "answer": "1"},
        {"task": "vqa", "question": "How many sheds?", "target": "1"},
    ),
    "R1-V": (
        {"image": "a.png", "problem": "How many sheds?", "solution": "<think>One.</think><answer> 1 </answer>"},
        {"task": "vqa", "target": "1", "reasoning": "One."},
    ),
    "VLM-R1": (
        {"image": "a.png", "problem": "Where is the shed?", "solution": [60, 40, 120, 80]},
        {"task": "visual_grounding", "question": "Where is the shed?", "target": (SHED,), "frame": PIXELS},
    ),
    "boxes in answer tags": (
        {"image": "a.png", "problem": "Where are they?", "solution": "<answer>[[60, 40, 120, 80]]</answer>"},
        {"task": "visual_grounding", "target": (SHED,), "frame": PIXELS},
    ),
    "JSON boxes": (
        {"image": "a.png", "problem": "Where is it?", "answer": '{"bbox": [120, 80, 60, 40], "label": "shed"}'},
        {"target": (Box(SHED.coords, "shed"),), "frame": PIXELS, "dialect": "json"},
    ),
    "land cover": (
        {"image": "a.png", "question": "Which land cover classes are present?", "answer": ["forest", "river"]},
        {"task": "multilabel_classification", "target": ("forest", "river")},
    ),
    "objects": (
        {"image": "a.png", "question": "What objects are in the image?", "answer": ["ship", "small vehicle"]},
        {"task": "multilabel_classification", "target": ("ship", "small vehicle")},
    ),
    "corners": (
        {"image": "a.png", "problem": "Where is it?", "solution": [[60, 40], [120, 80]]},
        {"target": (SHED,), "frame": PIXELS},
    ),
    "corners as text": (
        {"image": "a.png", "problem": "Where are they?", "answer": "(60, 40), (120, 80); (10, 10), (20, 20)"},
        {"task": "object_detection", "target": (SHED, Box((10, 10, 20, 20))), "frame": PIXELS},
    ),
    "bare numbers": (
        {"image": "a.png", "problem": "Where is it?", "answer": "60, 40, 120, 80"},
        {"task": "visual_grounding", "target": (SHED,), "frame": PIXELS},
    ),
    "numbers": (
        {"image": "a.png", "question": "How many?", "answer": 7, "split": "val"},
        {"task": "vqa", "target": "7", "split": "validation"},
    ),
    "classes": (
        {"image": "a.png", "question": "Which ones are depicted? List of classes.", "answer": ["field", "shed"]},
        {"task": "multilabel_classification", "target": ("field", "shed")},
    ),
    "verl": (
        {
            "data_source": "sheds",
            "prompt": [{"role": "user", "content": "<image>Is there a shed?"}],
            "images": ["a.png"],
            "reward_model": {"style": "rule", "ground_truth": "yes"},
            "extra_info": {"split": "test", "index": 4},
        },
        {"id": "test-4", "task": "vqa", "target": "yes", "split": "test", "dataset": "sheds"},
    ),
    "ms-swift": (
        {
            "messages": [{"role": "system", "content": None}, {"role": "user", "content": "<image>Is there a shed?"}],
            "images": ["a.png"],
            "solution": "yes",
        },
        {"task": "vqa", "question": "Is there a shed?", "target": "yes"},
    ),
    "Alpaca": (
        {"images": ["a.png"], "instruction": "<image>Answer.", "input": "Is there a shed?", "output": "yes"},
        {"task": "vqa", "question": "Answer.\nIs there a shed?", "target": "yes"},
    ),
}


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("form", QA)
def test_questions_of_every_form_and_container(form: str, kind: str, tmp_path: Path) -> None:
    record, expected = QA[form]
    write_scene(tmp_path / "in" / "a.png")
    key = "image" if "image" in record else "images"
    example = only(run_convert("qa", write_container(tmp_path / "in", [record], kind, key), tmp_path / "out"))
    if kind in ("shards", "arrow") and form not in ("numbers", "verl"):
        expected = expected | {"split": "test"}
    assert {name: getattr(example, name) for name in expected} == expected


@pytest.mark.parametrize("kind", CONTAINERS)
def test_images_of_every_container_are_found_after_conversion(kind: str, tmp_path: Path) -> None:
    write_scene(tmp_path / "in" / "a.png")
    outcome = run_convert("qa", write_container(tmp_path / "in", [QA["EasyR1"][0]], kind), tmp_path / "out")
    (name,) = only(outcome).images
    assert (tmp_path / "out" / outcome.card["image_root"] / name).is_file()
    assert outcome.card["notes"] == []


def test_every_question_of_a_conversation_is_a_record(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, *messages("One?", "1"), *messages("Two?", "2")]
    outcome = convert(tmp_path, [{"id": "x", "messages": turns, "images": ["a.png"], "source_url": "u", "note": None}])
    assert [(r.example.id, r.example.question, r.example.target) for r in outcome.rows] == [
        ("x", "One?", "1"),
        ("x-2", "Two?", "2"),
    ]
    assert outcome.counts.unread == {"source_url": 1, "system message": 1}


def test_turns_about_one_embedded_image_share_it(tmp_path: Path) -> None:
    write_scene(tmp_path / "in" / "a.png")
    turns = [
        t for box in ("[60, 40, 700, 80]", "[60, 40, 120, 80]", "[6, 4, 130, 90]") for t in messages("Where?", box)
    ]
    records = [{"messages": turns, "images": ["a.png"]}, *[{"messages": turns[2:], "images": ["a.png"]}] * 20]
    outcome = run_convert("chat", write_container(tmp_path / "in", records, "shards"), tmp_path / "out")
    assert [row.example.frame for row in outcome.rows] == [PIXELS] * 42
    assert (tmp_path / "out" / outcome.rows[0].example.images[0]).is_file()
    assert "data/test-00000-of-00001.parquet:1: boxes: expected coordinates inside the image" in outcome.reasons[1]


def test_absolute_image_paths_must_lie_below_the_image_root(tmp_path: Path) -> None:
    inside = {"messages": messages("Is it?", "yes"), "images": [str(tmp_path / "in" / "a.png")]}
    outcome = convert(tmp_path, [inside, inside | {"images": ["/etc/passwd"]}, inside | {"images": ["http://x/a.png"]}])
    assert [row.example.images for row in outcome.rows] == [("a.png",)]
    assert "give --images" in outcome.reasons[2]
    assert "save the image first" in outcome.reasons[3]


def test_an_answer_that_is_null_is_absent_and_an_unknown_key_is_counted(tmp_path: Path) -> None:
    record = {"image": "a.png", "problem": "Is it?", "answer": "yes", "difficulty": 3, "hint": None}
    outcome = convert(tmp_path, [record, record, record | {"answer": None}], "qa")
    assert (len(outcome.rows), outcome.counts.passed_over) == (2, 1)
    assert outcome.card["unread_keys"] == {"difficulty": 2}


@pytest.mark.parametrize(
    ("name", "record", "reason"),
    [
        ("chat", {"messages": messages("Q?", "yes")}, "expected an image under one of images, image"),
        ("chat", {"messages": messages("Q?", "yes"), "images": [5]}, "expected the path of an image"),
        ("chat", {"messages": messages("Q?", ""), "images": ["a.png"]}, "expected an answer"),
        ("chat", {"messages": [{"role": "tool", "content": "x"}], "images": ["a.png"]}, "role: expected one of human"),
        ("chat", {"messages": messages("Q?", [{"type": "audio"}]), "images": ["a.png"]}, "type text or image"),
        ("chat", {"messages": messages("Q?", "yes"), "videos": ["a.mp4"]}, "videos: expected images only"),
        ("chat", {"messages": messages("<bbox>", "a"), "images": ["a.png"], "objects": {"bbox": []}}, "found fewer"),
        (
            "chat",
            {"messages": messages("Q", "a"), "images": ["a.png"], "objects": {"bbox": [[1, 2, 3, 4]]}},
            "found 1 without",
        ),
        (
            "chat",
            {"messages": messages("Q", "<bbox>"), "images": ["a.png"], "objects": {"bbox": [[1, 2, 3]]}},
            "expected a box of 4, 5 or 8 numbers",
        ),
        ("chat", {"messages": messages("<image><image>Q?", "a"), "images": ["a.png"]}, "<image>, 2 in all, found 1"),
        ("chat", {"messages": messages("<image>Q?", "a"), "images": ["a.png"] * 2}, "<image>, 1 in all, found 2"),
        (
            "chat",
            {"messages": messages([{"type": "image"}, {"type": "text", "text": "Q?"}], "a"), "images": ["a.png"] * 2},
            "<image>, 1 in all, found 2",
        ),
        ("qa", {"image": "a.png", "problem": "<image> <image> Q?", "answer": "a"}, "<image>, 2 in all, found 1"),
        (
            "qa",
            {"image": "a.png", "problem": "Where?", "answer": [{"bbox": [60, 40, 120, 80], "lable": "x"}]},
            "unknown key 'lable'; did you mean 'label'",
        ),
        ("qa", {"image": "a.png", "problem": "Q?"}, "expected one of the keys answer, solution"),
        ("qa", {"image": "a.png", "answer": "yes"}, "expected one of the keys problem, question"),
        ("qa", {"image": "a.png", "problem": "Q?", "answer": {"x": 1}}, "expected an answer"),
        ("qa", {"image": "a.png", "problem": "Q?", "answer": ["a", "b"]}, "expected one answer"),
        ("qa", {"image": "a.png", "problem": "Q?", "answer": [[1, 2, 3], [4, 5, 6]]}, "a box of 4, 5 or 8 numbers"),
        (
            "qa",
            {"image": "a.png", "problem": "Classify it. Classes: farm, forest, sea.", "answer": "farm, forest"},
            "expected one class, found 2",
        ),
        ("qa", {"image": "a.png", "prompt": [{"role": "assistant", "content": "x"}], "answer": "y"}, "one message"),
    ],
)
def test_only_the_invalid_record_is_quarantined(name: str, record: dict, reason: str, tmp_path: Path) -> None:
    good = {"chat": {"messages": messages("Q?", "yes"), "images": ["a.png"]}, "qa": QA["EasyR1"][0]}[name]
    outcome = convert(tmp_path, [good, record, good], name)
    assert (len(outcome.rows), list(outcome.reasons)) == (2, [2])
    assert reason in outcome.reasons[2]


def test_the_task_is_an_option(tmp_path: Path) -> None:
    record = QA["EasyR1"][0]
    assert only(convert(tmp_path, [record], "qa", task="image_captioning")).target == ("1",)
    with pytest.raises(DataError, match=r"option task: expected auto or one of .* did you mean 'vqa'"):
        convert(tmp_path / "other", [record], "qa", task="vqaa")


def test_placeholders_of_all_images_may_stand_in_every_question(tmp_path: Path) -> None:
    turns = [*messages("<image>Is it?", "yes"), *messages("<image>And now?", "no")]
    spread = [*messages("<image>Is it?", "yes"), *messages("<image>And here?", "no")]
    records = [{"messages": turns, "images": ["a.png"]}, {"messages": spread, "images": ["a.png", "a.png"]}]
    assert convert(tmp_path, records).reasons == {}


def test_boxes_of_swift_on_another_image_than_the_last_are_refused(tmp_path: Path) -> None:
    record = CHAT["ms-swift"][0]
    on_it = record | {"objects": record["objects"] | {"image_id": [0]}}
    assert convert(tmp_path, [on_it]).reasons == {}
    (reason,) = convert(tmp_path / "b", [record | {"objects": record["objects"] | {"image_id": [1]}}]).reasons.values()
    assert "objects.image_id: expected boxes on the last image, 0, found one on image 1" in reason


def test_unknown_keys_of_the_objects_of_swift_are_named(tmp_path: Path) -> None:
    record = CHAT["ms-swift"][0]
    outcome = convert(tmp_path, [record | {"objects": record["objects"] | {"score": [0.9], "image_id": None}}])
    assert dict(outcome.counts.unread) == {"objects.score": 1}


@pytest.mark.parametrize(
    "answer",
    [
        "The airplane is in the top left corner, not in the center.",
        "The airplanes are parked, not flying.",
        "The runway is empty; the airplanes are at the terminal.",
    ],
)
def test_text_with_a_negation_is_no_empty_target(answer: str, tmp_path: Path) -> None:
    record = {"messages": messages("<image>Detect all airplanes.", answer), "images": ["a.png"]}
    rows = convert(tmp_path, [record]).rows
    assert all(row.example.target for row in rows)


def test_norm1_boxes_of_swift_are_fractions_and_quadrilaterals_are_rotated(tmp_path: Path) -> None:
    record = CHAT["ms-swift"][0] | {"objects": {"ref": ["x"], "bbox": [[0.3, 0.25, 0.6, 0.5]], "bbox_type": "norm1"}}
    assert target_boxes(only(convert(tmp_path, [record])).target)[0].coords == pytest.approx((30, 25, 60, 50))
    corners = [60, 40, 120, 40, 120, 80, 60, 80]
    quad = CHAT["ms-swift"][0] | {"objects": {"ref": ["x"], "bbox": [corners]}}
    assert only(convert(tmp_path / "b", [quad])).target == (Box((60, 40, 120, 80, 0)),)
