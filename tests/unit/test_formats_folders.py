"""Conversion of folder-based formats: BigEarthNet, xBD, fMoW, images by class folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Box
from geovlm_ray.tasks.answers.labels import BIGEARTHNET_19, BIGEARTHNET_43
from tests.rs import RS, needs_rs
from tests.unit.conversion import run_convert, write, write_scene


def write_patch(folder: Path, labels: Any, bands: tuple[str, ...] = ("B02", "B03", "B04"), value: float = 1000) -> Path:
    write(folder / f"{folder.name}_labels_metadata.json", {"labels": labels})
    dtype = np.uint16 if value >= 0 else np.float32
    for i, band in enumerate(bands):
        tifffile.imwrite(folder / f"{folder.name}_{band}.tif", np.full((6, 5), value * (i + 1), dtype))
    return folder


def pixel(folder: Path, name: str) -> list[int]:
    return np.asarray(Image.open(folder / name))[0, 0].tolist()


def test_sentinel_2_patches_become_true_colour_images(tmp_path: Path) -> None:
    write_patch(tmp_path / "in" / "val" / "S2A_1", ["Pastures", "Airports"], value=500)
    outcome = run_convert("bigearthnet", tmp_path / "in", tmp_path / "out")
    example = outcome.rows[0].example
    assert example.target == ("Pastures", "Airports")
    assert (example.labels, example.sensor, example.gsd, example.split) == (
        *(BIGEARTHNET_43, "Sentinel-2", 10.0),
        "validation",
    )
    assert example.images == ("images/val/S2A_1/S2A_1.png",)
    assert outcome.card["image_root"] == "."
    assert pixel(tmp_path / "out", example.images[0]) == [int(r / 2000 * 255) for r in (1500, 1000, 500)]


def test_sentinel_1_patches_become_false_colour_images(tmp_path: Path) -> None:
    folder = write_patch(tmp_path / "in" / "S1A_1", ["Pastures"], ("VV", "VH"), value=-10)
    holes = np.full((6, 5), -20, np.float32)
    holes[1, 1] = np.nan
    tifffile.imwrite(folder / "S1A_1_VH.tif", holes)
    outcome = run_convert("bigearthnet", tmp_path / "in", tmp_path / "out")
    (example,) = (row.example for row in outcome.rows)
    rgb = np.asarray(Image.open(tmp_path / "out" / example.images[0]))
    assert rgb[0, 0].tolist() == [int(fraction * 255) for fraction in (15 / 25, 10 / 25, 10 / 15)]
    assert rgb[1, 1].tolist() == [153, 0, 0]
    assert example.sensor == "Sentinel-1"


def test_bigearthnet_labels_map_to_the_19_classes(tmp_path: Path) -> None:
    write_patch(tmp_path / "in" / "a", ["Rice fields", "Permanently irrigated land", "Sea and ocean", "Airports"])
    write_patch(tmp_path / "in" / "b", ["Airports", "Bare rock"])
    outcome = run_convert("bigearthnet", tmp_path / "in", tmp_path / "out", labels="19")
    assert [row.example.target for row in outcome.rows] == [("Arable land", "Marine waters")]
    assert outcome.rows[0].example.labels == BIGEARTHNET_19
    assert (outcome.counts.passed_over, outcome.counts.set_aside) == (1, 0)
    with pytest.raises(DataError, match="option labels: expected auto or 43 or 19, found '20'"):
        run_convert("bigearthnet", tmp_path / "in", tmp_path / "other", labels="20")


def test_only_invalid_patches_are_quarantined(tmp_path: Path) -> None:
    source = tmp_path / "in"
    write_patch(source / "good", ["Pastures"])
    write_patch(source / "lacks", ["Pastures"], ("B02", "B03"))
    write_patch(source / "unknown", ["Lava"])
    write_patch(source / "none", [])
    write_patch(source / "types", [["Pastures"]])
    (write_patch(source / "broken", ["Pastures"]) / "broken_B03.tif").write_bytes(b"II*\x00\x08")
    tifffile.imwrite(write_patch(source / "sizes", ["Pastures"]) / "sizes_B03.tif", np.zeros((3, 3), np.uint16))
    tifffile.imwrite(write_patch(source / "wide", ["Pastures"]) / "wide_B03.tif", np.zeros((6, 5, 3), np.uint8))
    linked = write_patch(source / "linked", ["Pastures"]) / "linked_B03.tif"
    linked.rename(tmp_path / "away.tif")
    linked.symlink_to(tmp_path / "away.tif")
    write(source / "cut" / "cut_labels_metadata.json", '{"labels": ["Past')
    outcome = run_convert("bigearthnet", source, tmp_path / "out")
    assert [row.example.id for row in outcome.rows] == ["good/good"]
    reasons = {item.source_file.partition("/")[0]: item.reason for item in outcome.quarantine}
    for name, part in {
        "lacks": "expected bands B04, B03, B02 or VV, VH, found B02, B03",
        "unknown": "names of the 43 classes, found 'Lava'",
        "none": "names of the 43 classes, found []",
        "types": "names of the 43 classes",
        "broken": "broken_B03.tif: expected a decodable image",
        "sizes": "expected bands of one size",
        "wide": "expected one band, found 3",
        "linked": "found a symbolic link out of it",
        "cut": "expected a JSON object",
    }.items():
        assert part in reasons.pop(name)
    assert not reasons


@needs_rs
def test_real_patches(tmp_path: Path) -> None:
    outcome = run_convert("bigearthnet", RS / "A_images", tmp_path / "out")
    assert [row.example.sensor for row in outcome.rows] == ["Sentinel-1"] * 4 + ["Sentinel-2"] * 2
    for row in outcome.rows[4:]:
        actual = np.asarray(Image.open(tmp_path / "out" / row.example.images[0])).astype(int)
        expected = np.asarray(Image.open((RS / "A_images" / row.example.id).parent / "derived_rgb_div2000.png"))
        assert np.abs(actual - expected).max() <= 1
    assert outcome.rows[4].example.target == ("Non-irrigated arable land", "Pastures")


def building(damage: str, x: float, y: float, side: float = 10) -> dict[str, Any]:
    corners = [(x, y), (x + side, y), (x + side, y + side), (x, y + side), (x, y)]
    text = ", ".join(f"{a} {b}" for a, b in corners)
    return {"properties": {"feature_type": "building", "subtype": damage}, "wkt": f"POLYGON (({text}))"}


def write_disaster(folder: Path, *buildings: Any, name: str = "storm_1", **fields: Any) -> Path:
    metadata = {"width": 1000, "height": 500, "gsd": 1.5, "sensor": "GEOEYE01", "disaster_type": "wind"} | fields
    write(folder / "labels" / f"{name}_post_disaster.json", {"features": {"xy": list(buildings)}, "metadata": metadata})
    write(folder / "labels" / f"{name}_pre_disaster.json", {"features": {"xy": []}, "metadata": metadata})
    return folder


def test_xbd_pairs_yield_three_tasks(tmp_path: Path) -> None:
    buildings = [building("destroyed", 100, 50), building("no-damage", 200, 50), building("un-classified", 300, 50)]
    write_disaster(tmp_path / "in" / "train", *buildings, building("destroyed", 400, 50))
    outcome = run_convert("xbd", tmp_path / "in", tmp_path / "out")
    examples = [row.example for row in outcome.rows]
    assert [e.task for e in examples] == [
        *["referred_object_detection"] * 2,
        *["damage_assessment"] * 3,
        "temporal_classification",
    ]
    assert {e.images for e in examples} == {
        ("train/images/storm_1_pre_disaster.png", "train/images/storm_1_post_disaster.png")
    }
    undamaged, destroyed = examples[:2]
    assert undamaged.target == (Box((200.0, 50.0, 210.0, 60.0), "no-damage"),)
    assert "every undamaged building" in undamaged.question
    assert [b.coords for b in destroyed.target if isinstance(b, Box)] == [(100, 50, 110, 60), (400, 50, 410, 60)]
    assert destroyed.frame.scale == (1000.0, 500.0)
    assert "[[10.0, 10.0, 11.0, 12.0]]" in examples[2].question
    assert [e.target for e in examples[2:]] == [("destroyed",), ("no-damage",), ("destroyed",), ("wind",)]
    assert {(e.gsd, e.sensor, e.split) for e in examples} == {(1.5, "GEOEYE01", "train")}
    assert len({e.id for e in examples}) == len(examples)


def test_number_of_xbd_buildings_is_an_option(tmp_path: Path) -> None:
    write_disaster(tmp_path / "in", *(building("destroyed", 20 * i, 0) for i in range(20)))
    outcome = run_convert("xbd", tmp_path / "in", tmp_path / "out", buildings="3")
    questions = [row.example.question for row in outcome.rows if row.example.task == "damage_assessment"]
    assert ["[[0.0, 0.0" in questions[0], "[[18.0, 0.0" in questions[1], "[[38.0, 0.0" in questions[2]] == [True] * 3
    assert outcome.rows[0].example.images[0] == "images/storm_1_pre_disaster.png"
    with pytest.raises(DataError, match="option buildings: expected a positive integer, found '0'"):
        run_convert("xbd", tmp_path / "in", tmp_path / "other", buildings="0")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (building("burnt", 0, 0), "subtype: expected no-damage"),
        (building("destroyed", 0, 0) | {"wkt": "POLYGON ((0 0, 1"}, "wkt: expected a polygon"),
        (building("destroyed", 0, 0) | {"wkt": "POINT (3 4)"}, "polygon with positive area"),
        (building("destroyed", 0, 0) | {"wkt": "POLYGON EMPTY"}, "polygon with positive area"),
        (building("destroyed", 0, 0) | {"wkt": 5}, "wkt: expected str"),
        (building("destroyed", float("inf"), 0), "polygon"),
        (building("destroyed", 1200, 50), "expected a box inside the image, 1000 x 500 pixels, found 1200, 50, 1210"),
        (building("destroyed", 0.2, 0.2, 0.5), "expected a box in pixels, found fractions of the image"),
        ({"wkt": "POLYGON ((0 0, 1 0, 1 1, 0 0))"}, "'properties'"),
        (None, "expected an object"),
    ],
)
def test_only_invalid_xbd_buildings_are_quarantined(bad: Any, reason: str, tmp_path: Path) -> None:
    write_disaster(tmp_path / "in", bad, building("destroyed", 0, 0))
    outcome = run_convert("xbd", tmp_path / "in", tmp_path / "out")
    assert len(outcome.rows) == 3
    assert list(outcome.reasons) == [1]
    assert reason in outcome.reasons[1]


@pytest.mark.parametrize(
    ("size", "orientation", "reason"),
    [
        ((1000, 500), 1, ""),
        ((1000, 500), 3, "expected an upright image"),
        ((500, 1000), 8, ""),
        ((512, 512), 1, "size: expected that of images/storm_1_post_disaster.png, 512 x 512, found 1000 x 500"),
    ],
)
def test_xbd_images_must_have_the_stated_size(
    size: tuple[int, int], orientation: int, reason: str, tmp_path: Path
) -> None:
    write_disaster(tmp_path / "in", building("destroyed", 100, 50))
    write_scene(tmp_path / "in" / "images" / "storm_1_post_disaster.png", size, orientation)
    outcome = run_convert("xbd", tmp_path / "in", tmp_path / "out")
    assert len(outcome.rows) == (0 if reason else 3)
    assert [item.reason for item in outcome.quarantine if reason not in item.reason] == []
    assert len(outcome.quarantine) == bool(reason)


def test_invalid_xbd_files_are_quarantined_and_unpaired_pre_disaster_files_skipped(tmp_path: Path) -> None:
    write_disaster(tmp_path / "in", building("destroyed", 0, 0), name="good")
    write_disaster(tmp_path / "in", building("destroyed", 0, 0), name="flat", height=0)
    write(tmp_path / "in" / "labels" / "cut_post_disaster.json", '{"features"')
    write(tmp_path / "in" / "labels" / "alone_pre_disaster.json", {})
    write(tmp_path / "in" / "notes.json", {})
    outcome = run_convert("xbd", tmp_path / "in", tmp_path / "out")
    assert (len(outcome.rows), outcome.counts.passed_over, outcome.counts.set_aside) == (3, 1, 3)
    reasons = {Path(item.source_file).name: item.reason for item in outcome.quarantine}
    assert "positive width and height" in reasons["flat_post_disaster.json"]
    assert "expected a JSON object" in reasons["cut_post_disaster.json"]
    assert "found another name" in reasons["notes.json"]


def write_sequence(folder: Path, *times: str, **fields: Any) -> Path:
    for i, time in enumerate(times):
        name = f"{folder.name}_{i}_rgb"
        box = {"category": folder.parent.name, "box": [1, 2, 3, 4]}
        record = {"gsd": 0.5 + i, "img_filename": f"{name}.jpg", "timestamp": time, "bounding_boxes": [box]}
        write(folder / f"{name}.json", record | fields)
    return folder


def test_fmow_sequences_are_sorted_by_time(tmp_path: Path) -> None:
    times = ("2015-01-01T00:00:00Z", "2011-05-01T10:00:00.5Z", "2013-01-01T00:00:00Z")
    write_sequence(tmp_path / "in" / "val" / "dam" / "dam_7", *times)
    write_sequence(tmp_path / "in" / "train" / "zoo" / "zoo_1", *(f"20{i:02}-01-01T00:00:00Z" for i in range(10, 20)))
    outcome = run_convert("fmow", tmp_path / "in", tmp_path / "out")
    zoo, dam = (row.example for row in outcome.rows)
    assert dam.images == tuple(f"val/dam/dam_7/dam_7_{i}_rgb.jpg" for i in (1, 2, 0))
    assert (dam.task, dam.target, dam.split, dam.gsd) == ("temporal_classification", ("dam",), "validation", 1.5)
    assert zoo.images == tuple(f"train/zoo/zoo_1/zoo_1_{i}_rgb.jpg" for i in (0, 3, 6, 9))
    assert len(zoo.labels) == 62
    assert "Classes: airport, " in zoo.question
    assert len(run_convert("fmow", tmp_path / "in", tmp_path / "two", frames="2").rows[0].example.images) == 2


def test_invalid_fmow_frames_and_sequences_are_quarantined(tmp_path: Path) -> None:
    source = tmp_path / "in" / "zoo"
    time = "2015-01-01T00:00:00Z"
    write(write_sequence(source / "zoo_1", time, time) / "zoo_1_0_rgb.json", "{")
    write_sequence(source / "zoo_2", "yesterday")
    write_sequence(source / "zoo_3", time, bounding_boxes=[{"box": [1, 2, 3, 4]}])
    write_sequence(source / "zoo_4", time, img_filename="../../../../etc/passwd")
    write_sequence(source / "zoo_5", time, bounding_boxes={"category": "zoo"})
    write_sequence(source / "zoo_6", time, bounding_boxes=[{"category": "zoo"}, {"category": "false_detection"}])
    write_sequence(source / "zoo_7", time, bounding_boxes=[{"category": "zoo"}, {"category": "dam"}])
    outcome = run_convert("fmow", tmp_path / "in", tmp_path / "out")
    assert [row.example.id for row in outcome.rows] == ["zoo/zoo_1", "zoo/zoo_5", "zoo/zoo_6"]
    reasons = {Path(item.source_file).parent.name: item.reason for item in outcome.quarantine}
    assert {name: part in reasons[name] for name, part in EXPECTED_REASONS.items()} == dict.fromkeys(
        EXPECTED_REASONS, True
    )
    contents = {Path(item.source_file).parent.name: json.loads(item.content) for item in outcome.quarantine}
    assert contents["zoo_1"] == "{"
    assert json.loads(contents["zoo_2"])["timestamp"] == "yesterday"


EXPECTED_REASONS = {
    "zoo_1": "expected a JSON object",
    "zoo_2": "timestamp: expected an ISO 8601 time",
    "zoo_3": "expected the key 'category'",
    "zoo_4": "below the image root",
    "zoo_7": "expected one category",
}


def write_empty_files(folder: Path, *names: str) -> Path:
    for name in names:
        write(folder / name, "")
    return folder


def test_class_names_are_folder_names(tmp_path: Path) -> None:
    names = ("Images/denseResidential/a.tif", "Images/golf course/b.TIF", "Images/golf course/notes.txt")
    hidden = ("Images/golf course/._b.tif", ".cache/x.png", "__MACOSX/y/z.png")
    source = write_empty_files(tmp_path / "UCMerced", *names, *hidden)
    outcome = run_convert("folders", source, tmp_path / "out")
    assert {row.example.target: row.example.images for row in outcome.rows} == {
        ("denseResidential",): ("Images/denseResidential/a.tif",),
        ("golf course",): ("Images/golf course/b.TIF",),
    }
    example = outcome.rows[0].example
    assert (example.task, example.dataset) == ("scene_classification", "UCMerced")
    assert example.labels == ("denseResidential", "golf course")
    assert "denseResidential, golf course" in example.question


def test_split_folders_contain_class_folders(tmp_path: Path) -> None:
    names = ("train/port/1.jpg", "val/port/1.jpg", "test/lake/1.jpg", "train/stray.jpg", "stray.jpg")
    source = write_empty_files(tmp_path / "in", *names)
    outcome = run_convert("folders", source, tmp_path / "out")
    assert [row.example.split for row in outcome.rows] == ["test", "train", "validation"]
    assert {row.example.labels for row in outcome.rows} == {("lake", "port")}
    assert {item.source_file for item in outcome.quarantine} == {"stray.jpg", "train/stray.jpg"}
    assert run_convert("folders", source / "val", tmp_path / "alone").rows[0].example.split == "validation"


def test_symlinks_out_of_the_source_are_not_followed(tmp_path: Path) -> None:
    outside = write_empty_files(tmp_path / "outside", "a.jpg")
    source = write_empty_files(tmp_path / "in", "port/1.jpg")
    (source / "lake").symlink_to(outside)
    (source / "port" / "2.jpg").symlink_to(outside / "a.jpg")
    outcome = run_convert("folders", source, tmp_path / "out")
    assert [row.example.images for row in outcome.rows] == [("port/1.jpg",)]
    assert {item.source_file: item.reason for item in outcome.quarantine} == {
        "lake": "expected a folder, found a symbolic link, which is not followed",
        "port/2.jpg": "expected a file inside the source, found a symbolic link out of it",
    }


@pytest.mark.parametrize("name", ["bigearthnet", "xbd", "fmow", "folders", "dota", "coco", "captions", "rsvqa"])
def test_folder_without_files_of_the_format_is_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "in" / "empty").mkdir(parents=True)
    with pytest.raises(DataError, match=r"expected .* found no"):
        run_convert(name, tmp_path / "in", tmp_path / "out")


@needs_rs
def test_real_images_by_class_folder(tmp_path: Path) -> None:
    outcome = run_convert("folders", RS / "B_images", tmp_path / "out")
    assert len(outcome.rows) == 46
    assert outcome.rows[0].example.labels == ("A", "B", "dota", "geochat", "label", "rsicd", "teochat")


def write_table(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def test_bigearthnet_2_joins_patches_with_the_metadata_table(tmp_path: Path) -> None:
    source = tmp_path / "in"
    optical, radar = (
        "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57",
        "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_26_57",
    )
    tile = source / "BigEarthNet-S2" / "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP" / optical
    scene = source / "BigEarthNet-S1" / "S1A_IW_GRDH_1SDV_20170613T165043" / radar
    (write_patch(tile, []) / f"{optical}_labels_metadata.json").unlink()
    (write_patch(scene, [], ("VV", "VH"), value=-10) / f"{radar}_labels_metadata.json").unlink()
    row = {"patch_id": optical, "labels": ["Pastures", "Arable land"], "split": "validation", "country": "Austria"}
    absent = row | {"patch_id": "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_0_0", "s1_name": None}
    unknown = row | {"labels": ["Lava"], "s1_name": None}
    write_table(source / "metadata.parquet", row | {"s1_name": radar}, absent, unknown)
    outcome = run_convert("bigearthnet", source, tmp_path / "out")
    assert [(r.example.sensor, r.example.split, r.example.target, r.extra) for r in outcome.rows] == [
        ("Sentinel-2", "validation", ("Pastures", "Arable land"), {"country": "Austria"}),
        ("Sentinel-1", "validation", ("Pastures", "Arable land"), {"country": "Austria"}),
    ]
    assert outcome.rows[0].example.labels == BIGEARTHNET_19
    assert (tmp_path / "out" / outcome.rows[1].example.images[0]).is_file()
    assert (outcome.counts.passed_over, list(outcome.reasons)) == (1, [3])
    assert "expected names of the 19 classes, found 'Lava'" in outcome.reasons[3]
    with pytest.raises(DataError, match="option labels: expected 19"):
        run_convert("bigearthnet", source, tmp_path / "other", labels="43")


def test_lists_at_the_top_give_the_splits_of_class_folders(tmp_path: Path) -> None:
    names = ("port/port_1.jpg", "port/port_2.jpg", "lake/lake_1.jpg", "lake/lake_2.jpg", "lake/lake_3.jpg")
    source = write_empty_files(tmp_path / "in", *names)
    write(source / "uc_merced-train.txt", "port/port_1.jpg\nlake_1.jpg 1\n")
    write(source / "val.txt", "./lake/lake_2.jpg\n")
    write(source / "test.txt", "port_2\nport_9\n")
    outcome = run_convert("folders", source, tmp_path / "out")
    assert {row.example.id.split("/")[1][:-4]: row.example.split for row in outcome.rows} == {
        "port_1": "train",
        "port_2": "test",
        "lake_1": "train",
        "lake_2": "validation",
        "lake_3": "unlisted",
    }
    (item,) = outcome.quarantine
    assert item.reason == "list of test: expected the file 'port_9', found none"
    write(source / "test.txt", "lake_1.jpg\n")
    with pytest.raises(
        DataError, match=r"expected each file in the list of one split, found 'lake_1.jpg' also in that of"
    ):
        run_convert("folders", source, tmp_path / "twice")
