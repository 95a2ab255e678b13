"""Conversion of conversations and questions: GeoChat, TEOChat, VRSBench."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.core.geometry import Frame, iou_matrix
from geovlm_ray.core.schema import Box, GroundedText
from tests.unit.conversion import dialogue, run_convert, write_json

AGRICULTURE = "Land principally occupied by agriculture, with significant areas of natural vegetation"
CHRONOLOGICAL = "This is a sequence of satellite images capturing the same location in chronological order: "


GEOCHAT = [
    {
        "id": "a",
        "image": "a/b.png",
        "conversations": dialogue("<image>\n[refer] where is <p>x</p> ?", "{<1><2><3><4>|<9>}"),
    },
    {
        "id": "b",
        "image": "b.png",
        "size": 5,
        "conversations": dialogue(
            "<image>\\nIs it rural?", "yes", "[refer] it", "", "[identify]{<1><2><3><4>}", "<p>ship</p>"
        ),
    },
    {
        "id": 7,
        "image": "b.png",
        "conversations": dialogue("[grounding] it", "<p>two</p> {<1><2><3><4>}<delim>{<5><6><7><8>}."),
    },
]


@pytest.mark.parametrize("name", ["GeoChat_Instruct.json", "GeoChat_Instruct.jsonl"])
def test_geochat_turns_become_records_and_only_the_invalid_turn_is_quarantined(tmp_path: Path, name: str) -> None:
    outcome = run_convert("geochat", write_json(tmp_path / name, GEOCHAT), tmp_path / "out")
    assert [(r.example.id, r.example.task, r.source_record) for r in outcome.rows] == [
        ("a", "referred_object_detection", 1),
        ("b", "vqa", 2),
        ("b-3", "region_captioning", 2),
        ("7", "grounded_description", 3),
    ]
    assert outcome.reasons == {
        2: "turn 2: answer of referred_object_detection: expected one non-empty answer, found ''"
    }
    refer, vqa, identify, grounding = (r.example for r in outcome.rows)
    assert (refer.images, refer.question, refer.frame, refer.dialect) == (
        ("a/b.png",),
        "[refer] where is <p>x</p> ?",
        Frame(),
        "brackets",
    )
    assert (vqa.question, vqa.target, outcome.rows[1].extra, outcome.rows[2].extra) == (
        "Is it rural?",
        "yes",
        {"size": 5},
        {},
    )
    assert (identify.question, identify.target) == ("[identify]{<1><2><3><4>}", ("ship",))
    assert grounding.target == GroundedText("two {<1><2><3><4>}{<5><6><7><8>}.", (Box((1, 2, 3, 4)), Box((5, 6, 7, 8))))


BENCH: list[tuple[dict[str, Any], tuple[Any, ...] | None]] = [
    (
        {"question_id": 1, "image_id": "P1", "question": "1 ship", "ground_truth": "{<7><2><9><4>|<8>}", "type": "ref"},
        (
            "referred_object_detection",
            "P1.png",
            "[refer] Give me the location of <p> 1 ship </p>",
            (Box((7, 2, 9, 4, 8)),),
        ),
    ),
    (
        {"question_id": 2, "image_id": "P1", "question": "{<7><2><9><4>}", "ground_truth": "a ship", "type": "region"},
        ("region_captioning", "P1.png", "[identify] What is the object present at {<7><2><9><4>}", ("a ship",)),
    ),
    (
        {
            "question_id": "denseresidential/d01",
            "image": "d.tif",
            "text": "Classify. Classes: dense residential, beach.",
        },
        ("scene_classification", "d.tif", "Classify. Classes: dense residential, beach.", ("dense residential",)),
    ),
    (
        {"question_id": 4, "image": "1.tif", "text": "Any water?\nAnswer in one word.", "ground_truth": "no"},
        ("vqa", "1.tif", "Any water?\nAnswer in one word.", "no"),
    ),
    ({"question_id": 5, "image": "1.tif", "text": "Any water?\nAnswer in one word."}, None),
]


def test_geochat_bench_prompts_equal_those_of_the_official_scripts(tmp_path: Path) -> None:
    outcome = run_convert("geochat", write_json(tmp_path / "bench.jsonl", [r for r, _ in BENCH]), tmp_path / "out")
    found = [(e.task, *e.images, e.question, e.target) for e in (r.example for r in outcome.rows)]
    assert found == [expected for _, expected in BENCH if expected]
    assert (outcome.counts.passed_over, outcome.counts.set_aside, outcome.rows[0].extra) == (1, 0, {"type": "ref"})
    assert {r.example.split for r in outcome.rows} == {"test"}


def test_geochat_bench_corner_boxes_are_in_pixels(tmp_path: Path) -> None:
    corners = [[[100, 100], [300, 100], [300, 200], [100, 200]]]
    record = {"question_id": 1, "image_id": "train_1", "question": "1 ship", "ground_truth": corners, "type": "ref"}
    bad = record | {"ground_truth": [[[1, 2], [3, 4]]]}
    outcome = run_convert("geochat", write_json(tmp_path / "bench.jsonl", [record, bad]), tmp_path / "out")
    assert outcome.rows[0].example.target == (Box((100, 100, 300, 200, 0)),)
    assert outcome.rows[0].example.frame == Frame("pixel", 600, 600)
    assert "expected four corners" in outcome.reasons[2]


TEOCHAT: list[tuple[dict[str, Any], tuple[Any, ...]]] = [
    (
        {"video": ["b", "a", "a", "c"], "timestamp": ["2016-05-01"] * 4, "task": "fmow", "polygon": "POLYGON EMPTY"}
        | {
            "conversations": dialogue(
                f"{CHRONOLOGICAL}<video>\nClassify it as one of: lake or pond, dam.", "Lake or pond."
            )
        },
        (
            "temporal_classification",
            ("b", "a", "a", "c"),
            f"{CHRONOLOGICAL}Classify it as one of: lake or pond, dam.",
            ("Lake or pond",),
        ),
    ),
    (
        {"video": ["b", "a"], "timestamp": ["2019-05-01T10:00:00Z", "2017-05-01"]}
        | {
            "conversations": dialogue(
                "Image 1: <image>Image 2: <image>\nClassify the damage at [0, 8, 9, 9].", "Destroyed"
            )
        },
        ("damage_assessment", ("a", "b"), "Classify the damage at [0, 8, 9, 9].", ("Destroyed",)),
    ),
    (
        {
            "video": ["a"],
            "conversations": json.dumps(dialogue("<video> Locate it with a bounding box.", "[1, 2, 3, 4]")),
        },
        ("visual_grounding", ("a",), "Locate it with a bounding box.", (Box((1, 2, 3, 4)),)),
    ),
    (
        {"video": ["a", "b"]}
        | {"conversations": dialogue("Identify buildings. If none, do not output a bounding box.", "There are none.")},
        ("object_detection", ("a", "b"), "Identify buildings. If none, do not output a bounding box.", ()),
    ),
]


def test_teochat_sequences_are_sorted_by_date_and_keep_repeated_images(tmp_path: Path) -> None:
    outcome = run_convert("teochat", write_json(tmp_path / "train.json", [r for r, _ in TEOCHAT]), tmp_path / "out")
    assert outcome.reasons == {}
    found = [(e.task, e.images, e.question, e.target) for e in (r.example for r in outcome.rows)]
    assert found == [expected for _, expected in TEOCHAT]
    assert outcome.rows[0].extra == {"timestamp": ["2016-05-01"] * 4, "task": "fmow", "polygon": "POLYGON EMPTY"}
    assert outcome.rows[1].extra["video"] == ["b", "a"]


def test_teochat_answer_needs_boxes_if_the_prompt_asks_for_them(tmp_path: Path) -> None:
    record = {"video": ["a"], "conversations": dialogue("<video> Locate it with a bounding box.", "nowhere")}
    outcome = run_convert("teochat", write_json(tmp_path / "train.json", [record]), tmp_path / "out")
    assert "expected boxes" in outcome.reasons[1]


ANNOTATION = {
    "image": "P1.png",
    "caption": "A harbour.",
    "objects": [
        {"referring_sentence": "the ship", "obj_cls": "ship", "obj_corner": [0.1, 0.2, 0.3, 0.2, 0.3, 0.5, 0.1, 0.5]},
        {"referring_sentence": "at the edge", "obj_corner": [0.5, 0.4, 0.6, 0.5, 0.5, 1.2, 0.4, 1.1]},
        {"referring_sentence": "bad", "obj_corner": [1, 2]},
    ],
    "qa_pairs": [{"question": "How many?", "answer": "2", "type": "object quantity"}, {"question": "Why?"}],
}


@pytest.mark.parametrize("indent", [None, 2])
def test_vrsbench_annotations_yield_captions_boxes_and_questions(tmp_path: Path, indent: int | None) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "P1.json").write_text(json.dumps(ANNOTATION, indent=indent))
    outcome = run_convert("vrsbench", tmp_path / "in", tmp_path / "out")
    assert [(r.example.task, r.example.question, r.example.target) for r in outcome.rows] == [
        ("image_captioning", "Describe the image in detail", ("A harbour.",)),
        ("visual_grounding", "the ship", (Box((10, 20, 30, 50)),)),
        ("visual_grounding", "at the edge", (Box((40, 40, 60, 100)),)),
        ("vqa", "How many?", "2"),
    ]
    assert outcome.rows[1].extra == {"obj_cls": "ship"}
    assert [entry.reason.split(":")[0] for entry in outcome.quarantine] == ["objects-3", "qa_pairs-2"]


def test_vrsbench_annotations_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    text = json.dumps({"image": "P1.png", "caption": "A port."}, indent=1)
    (tmp_path / "P1.json").write_text(text, encoding="utf-8-sig")
    outcome = run_convert("vrsbench", tmp_path / "P1.json", tmp_path / "out")
    assert len(outcome.rows) == 1
    assert not outcome.quarantine


def test_vrsbench_boxes_keep_their_angle_on_request(tmp_path: Path) -> None:
    corners = [0.5, 0.2, 0.7, 0.4, 0.4, 0.7, 0.2, 0.5]
    record = ANNOTATION | {"objects": [{"referring_sentence": "x", "obj_corner": corners}]}
    outcome = run_convert("vrsbench", write_json(tmp_path / "P1.json", [record]), tmp_path / "out", boxes="rotated")
    (box,) = outcome.rows[1].example.target
    assert isinstance(box, Box)
    assert len(box.coords) == 5
    assert iou_matrix([box.coords], [[100 * v for v in corners]], rotated=True)[0, 0] == pytest.approx(1)


def test_vrsbench_evaluation_files(tmp_path: Path) -> None:
    records = [
        {
            "image_id": "a.png",
            "question": "the ship",
            "ground_truth": "{<1><2><30><40>}",
            "type": "ref",
            "unique": True,
        },
        {"image_id": "a.png", "question": "Describe", "ground_truth": "a ship", "type": "caption"},
        {"image_id": "a.png", "question": "How many?", "ground_truth": "2", "type": "object quantity"},
        {"image_id": "a.png", "question": "the ship", "ground_truth": "none", "type": "ref"},
    ]
    outcome = run_convert("vrsbench", write_json(tmp_path / "eval.json", records), tmp_path / "out")
    assert [(r.example.task, r.example.target, r.example.split) for r in outcome.rows] == [
        ("visual_grounding", (Box((1, 2, 30, 40)),), "test"),
        ("image_captioning", ("a ship",), "test"),
        ("vqa", "2", "test"),
    ]
    assert outcome.rows[0].extra == {"type": "ref", "unique": True}
    assert list(outcome.reasons) == [4]


@pytest.mark.parametrize("name", ["geochat", "earthdial", "teochat", "vrsbench"])
@pytest.mark.parametrize(
    ("content", "quarantined"),
    [
        (b'[{"id": 1}, {"id"', 2),
        (b'[1, null, [], "/etc/passwd", {}]', 5),
        (b'"/etc/passwd"\n5\n', 2),
        (b"\x00\x01\xff\xfe\n", 1),
        (b"PAR1\xff\xff", 1),
        (b"", 0),
    ],
)
def test_hostile_files_are_quarantined(tmp_path: Path, name: str, content: bytes, quarantined: int) -> None:
    (tmp_path / "a.json").write_bytes(content)
    outcome = run_convert(name, tmp_path / "a.json", tmp_path / "out")
    assert (outcome.counts.records, outcome.counts.set_aside) == (0, quarantined)
    assert "root:" not in "".join(entry.content for entry in outcome.quarantine)


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": "../secret.png"},
        {"image": "/etc/passwd"},
        {"image": ["a.png", 5]},
        {"image": []},
        {"image": None},
        {"id": 1.5},
        {"conversations": {}},
        {"conversations": []},
        {"conversations": "no JSON"},
        {"conversations": [1, 2]},
        {"conversations": [{"from": "human"}, {"from": "gpt", "value": "x"}]},
        {"conversations": [{"from": "human", "value": 5}, {"from": "gpt", "value": "x"}]},
        {"conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "x"}]},
        {"conversations": [{"from": "human", "value": "x"}]},
        {"conversations": [{"from": "robot", "value": "x"}, {"from": "gpt", "value": "x"}]},
        {"conversations": [{"from": ["human"], "value": "x"}, {"from": "gpt", "value": "x"}]},
    ],
)
@pytest.mark.parametrize("name", ["geochat", "earthdial", "teochat"])
def test_invalid_fields_quarantine_only_their_record(tmp_path: Path, name: str, wrong: dict[str, Any]) -> None:
    good = {"id": "1", "image": "a.png", "conversations": dialogue("<image>\nIs it?", "yes")}
    outcome = run_convert(name, write_json(tmp_path / "a.jsonl", [good, good | wrong, good]), tmp_path / "out")
    assert (outcome.counts.records, list(outcome.reasons)) == (2, [2])


@pytest.mark.parametrize("name", ["geochat", "earthdial", "teochat", "vrsbench", "earthdial-results"])
def test_symlink_out_of_the_source_is_not_read(tmp_path: Path, name: str) -> None:
    outside = write_json(tmp_path / "outside.jsonl", GEOCHAT)
    (tmp_path / "in").mkdir()
    os.symlink(outside, tmp_path / "in" / "link.jsonl")
    outcome = run_convert(name, tmp_path / "in", tmp_path / "out")
    assert (outcome.counts.records, list(outcome.reasons.values())) == (
        0,
        ["expected a file inside the source, found a symbolic link out of it"],
    )


def test_overlong_line_quarantines_only_itself(tmp_path: Path) -> None:
    records = [GEOCHAT[0], GEOCHAT[0] | {"extra": "x" * 20_000_000}, GEOCHAT[0]]
    outcome = run_convert("geochat", write_json(tmp_path / "a.jsonl", records), tmp_path / "out")
    assert (outcome.counts.records, list(outcome.reasons)) == (2, [2])


def write_vrsbench(folder: Path) -> Path:
    """VRSBench as it is distributed, with unpacked images and zipped annotations."""
    evaluation = {"image_id": "P2.png", "question": "How many?", "ground_truth": "2", "type": "object quantity"}
    conversation = {"id": 1, "image": "P1.png", "conversations": dialogue("<image>\n[vqa] How many?", "2")}
    write_json(folder / "VRSBench_train.json", [conversation])
    write_json(folder / "VRSBench_EVAL_vqa.json", [evaluation])
    for split, name in (("train", "P1"), ("val", "P2")):
        with zipfile.ZipFile(folder / f"Annotations_{split}.zip", "w") as archive:
            archive.writestr(f"Annotations_{split}/{name}.json", json.dumps(ANNOTATION | {"image": f"{name}.png"}))
        (folder / f"Images_{split}").mkdir()
        (folder / f"Images_{split}" / f"{name}.png").touch()
    return folder


def test_vrsbench_as_distributed_reads_each_question_once(tmp_path: Path) -> None:
    source = write_vrsbench(tmp_path / "VRSBench")
    outcome = run_convert("vrsbench", source, tmp_path / "out")
    assert [(r.example.images, r.example.split, r.example.target, r.example.dataset) for r in outcome.rows] == [
        (("Images_val/P2.png",), "test", "2", "VRSBench"),
        (("Images_train/P1.png",), "train", "2", "VRSBench"),
    ]
    (note,) = outcome.card["notes"]
    assert note.endswith("have the same content: Annotations_train.zip, Annotations_val.zip")
    rotated = run_convert("vrsbench", source, tmp_path / "rotated", boxes="rotated")
    assert {(*r.example.images, r.example.split) for r in rotated.rows} == {
        ("Images_train/P1.png", "train"),
        ("Images_val/P2.png", "validation"),
    }
    assert len(rotated.rows) == 8
    assert "VRSBench_EVAL_vqa.json, VRSBench_train.json" in rotated.card["notes"][0]


def test_vrsbench_archives_and_folders_of_annotations_are_equal(tmp_path: Path) -> None:
    source = write_vrsbench(tmp_path / "VRSBench")
    with zipfile.ZipFile(source / "Annotations_val.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    zipped = run_convert("vrsbench", source / "Annotations_val.zip", tmp_path / "a")
    folder = run_convert("vrsbench", tmp_path / "unpacked" / "Annotations_val", tmp_path / "b")
    assert [(r.example.task, r.example.target) for r in zipped.rows] == [
        (r.example.task, r.example.target) for r in folder.rows
    ]
    assert {row.example.split for row in (*zipped.rows, *folder.rows)} == {"validation"}
    (source / "Annotations_val.zip").write_bytes(b"PK\x03\x04")
    assert (
        "expected a zip archive" in run_convert("vrsbench", source / "Annotations_val.zip", tmp_path / "c").reasons[1]
    )


@pytest.mark.parametrize("name", ["geochat", "teochat"])
def test_boxes_that_cannot_be_percent_are_quarantined(name: str, tmp_path: Path) -> None:
    boxes = (
        "[10, 20, 30, 40]",
        "[60, 40, 700, 80]",
        "[0.1, 0.2, 0.3, 0.4]",
        "[30, 40, 10, 20]",
        "[60, 40, 700, 80, 9]",
    )
    records = [{"id": i, "image": "a.png", "conversations": dialogue("[refer] it", box)} for i, box in enumerate(boxes)]
    outcome = run_convert(name, write_json(tmp_path / "test.json", records), tmp_path / "out")
    assert [row.example.target for row in outcome.rows] == [
        *[(Box((10, 20, 30, 40)),)] * 2,
        (Box((60, 40, 700, 80, 9)),),
    ]
    assert "the format chat and its option frame" in outcome.reasons[2]
    assert "the format chat and frame=fraction" in outcome.reasons[3]
    assert {row.example.split for row in outcome.rows} == {"test"}
