"""Conversion of annotation formats whose entries refer to each other: RSVQA, COCO."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Box
from geovlm_ray.data.formats import FORMATS
from geovlm_ray.data.negatives import negative_rows
from tests.rs import RS, needs_rs
from tests.unit.conversion import Conversion, run_convert, write, write_scene

ANNOTATIONS = RS / "A_annotations"


def write_rsvqa(folder: Path, split: str, answer: str = "yes", **question: Any) -> None:
    template = {"id": 7, "img_id": 3, "type": "presence", "question": "Is there a road?", "answers_ids": [0, 9]}
    questions = [{"id": 6, "active": False}, template | {"active": True} | question]
    answers = [{"id": 0, "active": False}, {"id": 9, "question_id": 7, "answer": answer, "active": True}]
    images = [{"id": 3, "sensor": "S2", "res_x": "10m", "active": True}]
    for kind, entries in (("questions", questions), ("answers", answers), ("images", images)):
        write(folder / f"LR_split_{split}_{kind}.json", {kind: entries})


def test_rsvqa_joins_questions_answers_and_images_within_a_split(tmp_path: Path) -> None:
    for split, answer in (("train", "yes"), ("val", "no"), ("test_phili", "3")):
        write_rsvqa(tmp_path / "in", split, answer)
    write(tmp_path / "in" / "all_questions.json", {"questions": [{"id": 1, "question": "again"}]})
    (tmp_path / "in" / "Images_LR").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "in" / "Images_LR" / "3.tif")
    outcome = run_convert("rsvqa", tmp_path / "in", tmp_path / "out")
    examples = {row.example.split: row.example for row in outcome.rows}
    assert {s: e.target for s, e in examples.items()} == {"train": "yes", "validation": "no", "test_phili": "3"}
    assert examples["train"].question == "Is there a road?"
    assert {e.images for e in examples.values()} == {("Images_LR/3.tif",)}
    assert {(e.task, e.dataset, e.sensor, e.gsd) for e in examples.values()} == {
        ("vqa", "RSVQA-LR", "Sentinel-2", 10.0)
    }
    assert len({e.id for e in examples.values()}) == 3
    assert outcome.rows[0].extra == {"type": "presence", "img_id": 3}
    assert (outcome.counts.passed_over, outcome.counts.set_aside) == (3, 0)


def test_rsvqa_questions_about_inactive_images_are_skipped(tmp_path: Path) -> None:
    write_rsvqa(tmp_path / "in", "train")
    write_rsvqa(tmp_path / "in", "test", img_id=4)
    images = [{"id": 3, "active": False}, {"id": 4, "sensor": "S2", "active": True}]
    for split in ("train", "test"):
        write(tmp_path / "in" / f"LR_split_{split}_images.json", {"images": images})
    outcome = run_convert("rsvqa", tmp_path / "in", tmp_path / "out")
    assert [(row.example.split, row.extra["img_id"]) for row in outcome.rows] == [("test", 4)]
    assert (outcome.counts.passed_over, outcome.counts.set_aside) == (3, 0)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"answers_ids": [0]}, "id of an active answer, found [0]"),
        ({"answers_ids": [[9], None]}, "id of an active answer"),
        ({"answers_ids": None}, "answers_ids: expected list"),
        ({"img_id": "../../etc/passwd"}, "img_id: expected a number"),
        ({"img_id": [3]}, "img_id: expected int or str"),
        ({"question": "  "}, "expected a question"),
        ({"question": 5}, "question: expected str"),
    ],
)
def test_invalid_rsvqa_questions_are_quarantined(wrong: dict, reason: str, tmp_path: Path) -> None:
    write_rsvqa(tmp_path / "in", "train", **wrong)
    write_rsvqa(tmp_path / "in", "test")
    outcome = run_convert("rsvqa", tmp_path / "in", tmp_path / "out")
    assert [row.example.split for row in outcome.rows] == ["test"]
    assert list(outcome.reasons) == [2]
    assert reason in outcome.reasons[2]


def test_missing_rsvqa_file_is_named_in_the_error(tmp_path: Path) -> None:
    write_rsvqa(tmp_path, "train")
    (tmp_path / "LR_split_train_answers.json").unlink()
    with pytest.raises(DataError, match=r"expected the file LR_split_train_answers\.json next to it"):
        run_convert("rsvqa", tmp_path, tmp_path / "out")
    (tmp_path / "LR_split_train_questions.json").unlink()
    with pytest.raises(DataError, match=r"file \*questions\*\.json .* found LR_split_train_images\.json"):
        run_convert("rsvqa", tmp_path, tmp_path / "out")


@needs_rs
def test_real_rsvqa_answers_join_questions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\*questions\*\.json.*RSVQA_LR_split_test_answers\.json"):
        run_convert("rsvqa", ANNOTATIONS, tmp_path / "none")
    for kind in ("answers", "images"):
        name = f"RSVQA_LR_split_test_{kind}.json"
        write(tmp_path / "in" / name, (ANNOTATIONS / name).read_text())
    answers = json.loads((ANNOTATIONS / "RSVQA_LR_split_test_answers.json").read_text())["answers"]
    images = json.loads((ANNOTATIONS / "RSVQA_LR_split_test_images.json").read_text())["images"]
    image_of = {q: image["id"] for image in images if image["active"] for q in image["questions_ids"]}
    questions = [
        {"id": a["id"], "active": True, "img_id": image_of[a["id"]], "question": "What?", "answers_ids": [a["id"]]}
        if a["active"]
        else a
        for a in answers
    ]
    write(tmp_path / "in" / "RSVQA_LR_split_test_questions.json", {"questions": questions})
    outcome = run_convert("rsvqa", tmp_path / "in", tmp_path / "out")
    assert (len(outcome.rows), outcome.counts.passed_over, outcome.counts.set_aside) == (10_004, 23_208, 0)
    assert {(r.example.split, r.example.sensor, r.example.gsd) for r in outcome.rows} == {("test", "Sentinel-2", 10.0)}
    assert [r.example.target for r in outcome.rows] == [a["answer"] for a in answers if a["active"]]


def write_coco(path: Path) -> Path:
    """A COCO file of edge cases: unsorted entries, mixed id types, crowds, images without objects, unknown keys."""
    awkward = [1.1, 0.2, 0.3, 0.7000000000000001]
    annotations = [
        {"id": 7, "image_id": "a", "category_id": 3, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0},
        {"id": 8, "image_id": 1, "category_id": 3, "bbox": awkward, "iscrowd": 1, "segmentation": {"counts": "abc"}},
        {"id": 9, "image_id": 1, "category_id": 4, "bbox": awkward, "segmentation": [[1, 2.5, 3, 4, 5, 6]]},
        {"bbox": [-0.5, 2.0, 3.25, 1e-3], "id": 10, "image_id": 1, "category_id": 4, "note": {"k": [True, None]}},
        {"id": 11, "image_id": 5, "category_id": 4, "bbox": [1.5, 2.0, 3.0, 4.0], "iscrowd": 1},
        {"id": 12, "image_id": 1, "category_id": 4, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ]
    images = [
        {"id": 1, "file_name": "x/./one.jpg", "width": 10, "height": 20.0, "license": 2},
        {"id": 5, "file_name": "crowd.jpg", "width": 10, "height": 20},
        {"id": "a", "file_name": "é.jpg", "width": 7, "height": 8},
        {"id": 9, "file_name": "none.jpg", "width": 1, "height": 1},
    ]
    categories = [
        {"id": 4, "name": "boat", "supercategory": "é"},
        {"id": 3, "name": "storage_tank"},
        {"id": 77, "name": "unused", "keypoints": ["a"]},
    ]
    content = {"type": "instances", "annotations": annotations, "info": {"year": 1}, "images": images}
    content |= {"categories": categories, "licenses": [{"id": 2, "name": "CC-BY"}], "z": 3.5, "w": None}
    return write(path, content)


def test_coco_yields_one_record_per_image_and_category(tmp_path: Path) -> None:
    outcome = run_convert("coco", write_coco(tmp_path / "boats_val2017.json"), tmp_path / "out")
    boats, tanks = (row for row in outcome.rows)
    assert boats.example.task == "referred_object_detection"
    assert boats.example.question == "Give me the location of every boat in the image."
    assert tanks.example.question == "Give me the location of every storage tank in the image."
    assert boats.example.images == ("x/one.jpg",)
    assert [b.label for b in boats.example.target if isinstance(b, Box)] == ["boat", "boat"]
    assert tanks.example.target == (Box((1.0, 2.0, 4.0, 6.0), "storage_tank"),)
    assert boats.example.frame.scale == (10.0, 20.0)
    assert (boats.example.split, boats.licence, boats.example.dataset) == ("validation", "CC-BY", "boats_val2017")
    assert (outcome.counts.passed_over, outcome.counts.set_aside) == (2, 0)


def test_coco_question_template_is_an_option(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "c.json")
    outcome = run_convert("coco", source, tmp_path / "out", question="Where is {label} {}?")
    assert outcome.rows[0].example.question == "Where is boat {}?"
    with pytest.raises(DataError, match=r"option question: expected a string with \{label\}"):
        run_convert("coco", source, tmp_path / "other", question="Where is it?")


@pytest.mark.parametrize("source", ["made", pytest.param("real", marks=needs_rs)])
def test_coco_round_trip_is_exact(source: str, tmp_path: Path) -> None:
    real = ANNOTATIONS / "nwpu_vhr10_coco_even_ids.json"
    path = real if source == "real" else write_coco(tmp_path / "in" / "c.json")
    outcome = run_convert("coco", path, tmp_path / "out")
    restored = outcome.export("coco", tmp_path / "restored.json").read_text()
    # Compare text, which distinguishes 1 from 1.0 and is sensitive to key order.
    assert restored == json.dumps(json.loads(path.read_text()))
    if source == "real":
        assert (len(json.loads(restored)["images"]), len(json.loads(restored)["annotations"])) == (325, 1990)
        assert (len(outcome.rows), sum(len(r.example.target) for r in outcome.rows)) == (443, 1990)


def test_multiple_coco_files_are_restored_into_a_folder(tmp_path: Path) -> None:
    texts = {name: write_coco(tmp_path / "in" / name).read_text() for name in ("a.json", "deep/b.json")}
    outcome = run_convert("coco", tmp_path / "in", tmp_path / "out")
    folder = outcome.export("coco", tmp_path / "again")
    assert {name: (folder / name).read_text() for name in texts} == texts
    assert len({row.example.id for row in outcome.rows}) == len(outcome.rows) == 4
    files = outcome.card["header"]["files"]
    with pytest.raises(DataError, match=r"below the source, found '\.\./c\.json'"):
        FORMATS["coco"].restore(iter(()), {"files": files | {"../c.json": files["a.json"]}}, tmp_path / "other")  # type: ignore[misc]


def convert_invalid_coco(tmp_path: Path, **changes: Any) -> Conversion:
    """Convert a file with an invalid image, annotation or category between two valid annotations."""
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 10, "height": 10}],
        "categories": [{"id": 1, "name": "ship"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
    }
    for key, entry in changes.items():
        content[key].append(entry)
    content["annotations"].append({"image_id": 1, "category_id": 1, "bbox": [5, 5, 1, 1]})
    return run_convert("coco", write(tmp_path / "c.json", content), tmp_path / "out")


GOOD = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
IMAGE = {"id": 2, "file_name": "b.jpg", "width": 10, "height": 10}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"annotations": GOOD | {"image_id": 5}}, "id of an image in the file, found 5"),
        ({"annotations": GOOD | {"category_id": 5}}, "id of a category in the file, found 5"),
        ({"annotations": GOOD | {"image_id": [1]}}, "image_id: expected int or str"),
        ({"annotations": GOOD | {"bbox": [1, math.nan, 3, 4]}}, "bbox: expected x, y"),
        ({"annotations": GOOD | {"bbox": [1, math.inf, 3, 4]}}, "bbox: expected x, y"),
        ({"annotations": GOOD | {"bbox": [1, 2, -3, 4]}}, "positive width"),
        ({"annotations": GOOD | {"bbox": [1, 2, 3, 0]}}, "positive width"),
        ({"annotations": GOOD | {"bbox": [1, 2, 3]}}, "bbox: expected x, y"),
        ({"annotations": GOOD | {"bbox": [1, 2, 3, "4"]}}, "bbox: expected x, y"),
        ({"annotations": GOOD | {"bbox": [1, 2, 3, 1e300]}}, "bbox: expected x, y"),
        ({"annotations": GOOD | {"bbox": [5, 2, 30, 4]}}, "inside the image, 10 x 10 pixels, found 5, 2, 35, 6"),
        ({"annotations": GOOD | {"bbox": [-5, 2, 3, 4]}}, "expected a box inside the image"),
        ({"annotations": "text"}, "expected an object"),
        ({"annotations": None}, "expected an object"),
        ({"images": IMAGE | {"width": 0}}, "width: expected a positive number"),
        ({"images": IMAGE | {"height": True}}, "height: expected int or float"),
        ({"images": IMAGE | {"id": 1}}, "id: expected a unique image id, found 1 again"),
        ({"images": IMAGE | {"file_name": "../../etc/passwd"}}, "below the image root"),
        ({"images": IMAGE | {"file_name": "/etc/passwd"}}, "below the image root"),
        ({"categories": {"id": 2, "name": ""}}, "name: expected a non-empty string"),
        ({"categories": {"id": 1, "name": "boat"}}, "unique category id"),
    ],
)
def test_only_the_invalid_coco_entry_is_quarantined(changes: dict, reason: str, tmp_path: Path) -> None:
    outcome = convert_invalid_coco(tmp_path, **changes)
    assert [len(row.example.target) for row in outcome.rows] == [2]
    assert outcome.counts.set_aside == 1
    assert reason in outcome.quarantine[0].reason
    assert next(iter(changes)) in outcome.quarantine[0].reason
    restored = json.loads(outcome.export("coco", tmp_path / "again.json").read_text())
    assert (len(restored["images"]), len(restored["annotations"])) == (1, 2)
    has_bad_box = changes.get("annotations") not in ("text", None) and changes["annotations"]["bbox"] != GOOD["bbox"]
    assert any("1 of 1 records lack objects" in note for note in outcome.counts.notes) == has_bad_box


def test_crowds_make_the_record_of_their_class_incomplete(tmp_path: Path) -> None:
    outcome = run_convert("coco", write_coco(tmp_path / "c.json"), tmp_path / "out")
    boats, tanks = outcome.rows
    assert boats.extra["unclear"] == ["boat", "storage_tank"]
    assert "unclear" not in tanks.extra
    (note,) = [note for note in outcome.counts.notes if note.startswith("boxes: ")]
    assert note.startswith("boxes: 1 of 2 records lack objects of their class")


@pytest.mark.parametrize("bbox", [[5, 5, -3, 4], [5, 5, 400, 4]])
def test_no_negative_is_about_a_coco_class_whose_boxes_are_all_invalid(bbox: list[int], tmp_path: Path) -> None:
    content = {
        "images": [{"id": k, "file_name": f"{k}.png", "width": 96, "height": 96} for k in (1, 2)],
        "categories": [{"id": 1, "name": "ship"}, {"id": 2, "name": "plane"}, {"id": 3, "name": "tank"}],
        "annotations": [
            {"image_id": image, "category_id": category, "bbox": box}
            for image, category, box in [(1, 1, GOOD["bbox"]), (1, 2, bbox), (2, 2, GOOD["bbox"]), (2, 3, GOOD["bbox"])]
        ],
    }
    outcome = run_convert("coco", write(tmp_path / "c.json", content), tmp_path / "out")
    assert outcome.counts.set_aside == 1
    negatives = {(row.example.images[0], row.example.question) for row in negative_rows(tmp_path / "out", 0.9)}
    where = "Give me the location of every {} in the image."
    assert negatives == {("1.png", where.format("tank")), ("2.png", where.format("ship"))}


@pytest.mark.parametrize(("size", "is_right"), [((96, 64), True), ((64, 96), False), ((960, 640), False)])
def test_coco_states_the_size_of_its_images(size: tuple[int, int], is_right: bool, tmp_path: Path) -> None:
    Image.new("RGB", (96, 64)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}],
        "categories": [{"id": 1, "name": "ship"}],
        "annotations": [GOOD],
    }
    outcome = run_convert("coco", write(tmp_path / "c.json", content), tmp_path / "out")
    assert len(outcome.rows) == is_right
    expected = [] if is_right else [f"size: expected that of a.png, 96 x 64, found {size[0]} x {size[1]}"]
    assert list(outcome.reasons.values()) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "premature EOF"),
        ("\x00\x01\x02", "invalid char"),
        ("[{}]", "expected a COCO object"),
        ('{"images": []}', "expected a COCO object with the lists images, annotations, categories, found 'images'"),
        ('{"images": {}, "annotations": [], "categories": []}', "expected a COCO object"),
        ("[" * 200_000, "nested more than 100 deep"),
    ],
)
def test_file_not_in_coco_format_is_quarantined(text: str, reason: str, tmp_path: Path) -> None:
    write_coco(tmp_path / "in" / "good.json")
    write(tmp_path / "in" / "bad.json", text)
    outcome = run_convert("coco", tmp_path / "in", tmp_path / "out")
    assert len(outcome.rows) == 2
    assert any(reason in item.reason for item in outcome.quarantine)
    assert {item.source_file for item in outcome.quarantine} == {"bad.json"}


def test_truncated_coco_file_yields_the_records_before_the_cut(tmp_path: Path) -> None:
    text = write_coco(tmp_path / "whole.json").read_text()
    head = '{"categories": [{"id": 4, "name": "boat"}], ' + text[text.index('"images"') : text.index(', "categories"')]
    rest = text[text.index('"annotations"') : text.index('{"bbox": [-0.5')]
    outcome = run_convert("coco", write(tmp_path / "in" / "c.json", f"{head}, {rest}"), tmp_path / "out")
    assert [row.example.images for row in outcome.rows] == [("x/one.jpg",)]
    assert any("nothing after it was read" in item.reason for item in outcome.quarantine)


def test_symlinks_out_of_the_source_are_not_followed(tmp_path: Path) -> None:
    secret = write_coco(tmp_path / "outside" / "c.json")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.json").symlink_to(secret)
    (tmp_path / "in" / "link.txt").symlink_to(secret)
    for name in ("coco", "captions", "dota", "xbd"):
        outcome = run_convert(name, tmp_path / "in", tmp_path / name)
        assert outcome.rows == []
        assert "symbolic link out of it" in outcome.quarantine[0].reason


@pytest.mark.parametrize(
    ("file", "named", "stored"),
    [
        ("annotations/instances_train2017.json", "a.png", "train2017/a.png"),
        ("annotations/instances_train2017.json", "a.png", "images/a.png"),
        ("annotations/instances_val2017.json", "a.png", "images/val2017/a.png"),
        ("annotations/train.json", "images/a.png", "images/a.png"),
        ("instances.json", "a.png", "Images/a.png"),
    ],
)
@pytest.mark.parametrize("given", ["file", "folder"])
def test_images_of_coco_are_found_in_the_usual_folders(
    given: str, file: str, named: str, stored: str, tmp_path: Path
) -> None:
    image = {"id": 1, "file_name": named, "width": 200, "height": 160}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [60, 40, 60, 40]}
    table = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "shed"}]}
    path = write(tmp_path / "in" / file, table)
    write_scene(tmp_path / "in" / stored)
    outcome = run_convert("coco", path if given == "file" else path.parent, tmp_path / "out")
    (row,) = outcome.rows
    assert (Path(outcome.card["image_root"]) / row.example.images[0]).is_file()
    assert outcome.card["notes"] == []


def test_images_of_each_coco_split_are_found_in_its_folder(tmp_path: Path) -> None:
    for split in ("train2017", "val2017"):
        image = {"id": 1, "file_name": f"{split}.png", "width": 200, "height": 160}
        annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [60, 40, 60, 40]}
        table = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "shed"}]}
        write(tmp_path / "in" / "annotations" / f"instances_{split}.json", table)
        write_scene(tmp_path / "in" / split / f"{split}.png")
    outcome = run_convert("coco", tmp_path / "in" / "annotations", tmp_path / "out")
    assert [row.example.images for row in outcome.rows] == [("train2017/train2017.png",), ("val2017/val2017.png",)]
    assert outcome.card["notes"] == []


def test_images_of_rsicd_are_found_beside_its_file_and_absent_ones_are_noted(tmp_path: Path) -> None:
    images = [{"filename": f"{k}.png", "sentences": [{"raw": "A shed ."}], "split": "train"} for k in "ab"]
    source = write(tmp_path / "in" / "dataset_rsicd.json", {"images": images, "dataset": "rsicd"})
    write_scene(tmp_path / "in" / "RSICD_images" / "a.png")
    outcome = run_convert("captions", source, tmp_path / "out")
    assert outcome.card["image_root"].endswith("RSICD_images")
    (note,) = outcome.card["notes"]
    assert note.startswith("images: not found for 1 of 2 records below ")
    assert note.endswith("the first 'b.png'; give the folder of the images with --images")
