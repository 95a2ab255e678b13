"""Conversion of image captions and change captions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.core.errors import DataError
from tests.rs import RS, needs_rs
from tests.unit.conversion import run_convert, write, write_scene


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def image_entry(name: str, *sentences: str, **fields: Any) -> dict[str, Any]:
    return {"filename": name, "sentences": [{"raw": s, "sentid": i} for i, s in enumerate(sentences)]} | fields


def test_captions_in_karpathy_format(tmp_path: Path) -> None:
    images = [
        image_entry("a.tif", " A port . ", "", "A port .", split="train"),
        image_entry("b.tif", "A road .", split="val"),
    ]
    images += [
        image_entry("c.tif", "", "  ", split="test"),
        image_entry("d.tif", "A pond .", split="restval", filepath="more"),
    ]
    outcome = run_convert(
        "captions", write(tmp_path / "c.json", {"images": images, "dataset": "ucm"}), tmp_path / "out"
    )
    first, second, last = (row.example for row in outcome.rows)
    assert (first.task, first.images, first.target) == ("image_captioning", ("a.tif",), ("A port .", "A port ."))
    assert [e.split for e in (first, second, last)] == ["train", "validation", "restval"]
    assert (first.dataset, last.images) == ("ucm", ("more/d.tif",))
    assert (outcome.counts.passed_over, outcome.counts.set_aside) == (1, 0)


def test_nwpu_captions_grouped_by_class(tmp_path: Path) -> None:
    entry = {"filename": "airplane_001.jpg", "raw": "One .", "raw_1": "Two .", "raw_4": "Five .", "split": "test"}
    classes = {"airplane": [entry | {"sentid": 3}], "sea ice": [entry | {"filename": "ice.jpg"}]}
    touch(tmp_path / "ice.jpg")
    outcome = run_convert("captions", write(tmp_path / "nwpu.json", classes), tmp_path / "out")
    plane, ice = outcome.rows
    assert plane.example.target == ("One .", "Two .", "Five .")
    assert (plane.example.images, ice.example.images) == (("airplane/airplane_001.jpg",), ("ice.jpg",))
    assert (plane.example.split, plane.example.dataset, ice.extra) == ("test", "nwpu", {"class": "sea ice"})
    assert [row.source_record for row in outcome.rows] == [1, 2]
    assert plane.example.id != ice.example.id


def test_change_captions_refer_to_two_images(tmp_path: Path) -> None:
    pair = image_entry("t_1.png", "a road is built .", filepath="train", split="train", changeflag=1)
    source = write(tmp_path / "LevirCCcaptions.json", {"images": [pair]})
    (row,) = run_convert("captions", source, tmp_path / "out").rows
    assert row.example.task == "change_captioning"
    assert row.example.images == ("train/A/t_1.png", "train/B/t_1.png")
    assert row.extra == {"changeflag": 1}
    touch(tmp_path / "images" / "train" / "A" / "t_1.png", tmp_path / "images" / "train" / "B" / "t_1.png")
    (row,) = run_convert("captions", source, tmp_path / "found").rows
    assert row.example.images == ("images/train/A/t_1.png", "images/train/B/t_1.png")


def test_image_pairs_are_detected_by_folder_or_set_by_option(tmp_path: Path) -> None:
    source = write(tmp_path / "test.json", {"images": [image_entry("1x1.tif", "a house .")]})

    def images(out: str, **options: str) -> tuple[str, ...]:
        return run_convert("captions", source, tmp_path / out, **options).rows[0].example.images

    assert images("single") == ("1x1.tif",)
    assert images("forced", pairs="true") == ("A/1x1.tif", "B/1x1.tif")
    touch(tmp_path / "500_2000" / "1x1.tif", tmp_path / "500_2010" / "1x1.tif")
    assert images("found") == ("500_2000/1x1.tif", "500_2010/1x1.tif")
    assert images("refused", pairs="false") == ("1x1.tif",)
    with pytest.raises(DataError, match="option pairs: expected auto or true or false, found 'yes'"):
        images("wrong", pairs="yes")


def test_captions_as_json_lines_or_json_list(tmp_path: Path) -> None:
    records = [{"captions": ["One .", "Two ."], "filename": f"{i}.jpg"} for i in range(3)]
    lines = write(tmp_path / "in" / "rsicd_test.jsonl", "\n".join(map(json.dumps, records)))
    write(tmp_path / "in" / "list.json", records)
    outcome = run_convert("captions", lines.parent, tmp_path / "out")
    assert [row.example.split for row in outcome.rows] == ["train"] * 3 + ["test"] * 3
    assert {row.example.target for row in outcome.rows} == {("One .", "Two .")}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"filename": "a.jpg"}, "expected sentences, captions or raw"),
        ({"filename": "a.jpg", "captions": "text"}, "captions: expected list"),
        ({"filename": "a.jpg", "captions": ["text", 3]}, "expected sentences, captions or raw texts"),
        ({"filename": "a.jpg", "sentences": [{"tokens": []}]}, "expected the key 'raw'"),
        ({"filename": "../a.jpg", "captions": ["x"]}, "below the image root"),
        ({"filename": "a.jpg", "filepath": "../..", "captions": ["x"]}, "below the image root"),
        ({"filename": "/a.jpg", "captions": ["x"], "changeflag": 1}, "below the image root"),
        ({"filename": 3, "captions": ["x"]}, "filename: expected str"),
        ({"captions": ["x"]}, "expected the key 'filename'"),
        ({"filename": "a.jpg", "captions": ["x"], "split": 3}, "split: expected str"),
        ([1], "expected an object"),
    ],
)
@pytest.mark.parametrize("form", ["lines", "object"])
def test_only_invalid_captions_are_quarantined(bad: Any, reason: str, form: str, tmp_path: Path) -> None:
    records = [image_entry("1.jpg", "One ."), bad, image_entry("2.jpg", "Two .")]
    text = "\n".join(map(json.dumps, records)) if form == "lines" else {"images": records}
    outcome = run_convert("captions", write(tmp_path / "c.json", text), tmp_path / "out")
    assert [row.example.images for row in outcome.rows] == [("1.jpg",), ("2.jpg",)]
    assert list(outcome.reasons) == [2]
    assert reason in outcome.reasons[2]


def test_truncated_captions_file_yields_the_records_before_the_cut(tmp_path: Path) -> None:
    text = json.dumps({"images": [image_entry("1.jpg", "One ."), image_entry("2.jpg", "Two .")]})
    outcome = run_convert("captions", write(tmp_path / "c.json", text[:-12]), tmp_path / "out")
    assert [row.example.images for row in outcome.rows] == [("1.jpg",)]
    assert "nothing after it was read" in outcome.reasons[2]


@needs_rs
def test_real_captions(tmp_path: Path) -> None:
    outcome = run_convert("captions", RS / "B_annotations" / "rsicd_test_textaug.jsonl", tmp_path / "out")
    assert (len(outcome.rows), outcome.counts.set_aside) == (1093, 0)
    assert outcome.counts.splits == {"test": 1093}
    assert outcome.rows[0].example.images == ("rsicd_images/airport_348.jpg",)
    assert sum(len(row.example.target) for row in outcome.rows) == 1093 * 5


@needs_rs
def test_real_levir_pairs_are_detected(tmp_path: Path) -> None:
    shutil.copytree(RS / "B_images" / "samples_LEVIR", tmp_path / "in")
    names = sorted(p.name for p in (tmp_path / "in" / "A").iterdir())
    images = [image_entry(name, "houses are built .", split=name.partition("_")[0]) for name in names]
    outcome = run_convert("captions", write(tmp_path / "in" / "c.json", {"images": images}), tmp_path / "out")
    assert [row.example.images for row in outcome.rows] == [(f"A/{name}", f"B/{name}") for name in names]
    assert outcome.counts.splits == {"test": 4, "train": 2}
    assert outcome.counts.tasks == {"change_captioning": 6}


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("images", True),
        ("Images_val", True),
        ("JPEGImages", True),
        ("imgs_A", True),
        ("ucm_images", False),
        ("test_old", False),
    ],
)
def test_images_beside_a_source_are_taken_from_folders_that_name_no_other_dataset(
    folder: str, found: bool, tmp_path: Path
) -> None:
    images = [{"filename": "a.png", "sentences": [{"raw": "A shed ."}], "split": "train"}]
    source = write(tmp_path / "captions" / "dataset.json", {"images": images, "dataset": "other"})
    write_scene(tmp_path / folder / "a.png")
    outcome = run_convert("captions", source, tmp_path / "out")
    assert (Path(outcome.card["image_root"]).name == folder) == found
    assert (outcome.card["notes"] == []) == found
