"""DOTA conversion: quadrilaterals to rotated boxes."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import iou_polygons, rotated_corners
from geovlm_ray.core.schema import Box
from tests.rs import RS, needs_rs
from tests.unit.conversion import run_convert, write_scene


def write_dota(folder: Path, *lines: str, size: tuple[int, int] = (200, 100)) -> Path:
    (folder / "labelTxt").mkdir(parents=True)
    (folder / "labelTxt" / "P1.txt").write_text("\n".join(lines))
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", size).save(folder / "images" / "P1.png")
    return folder


def quad(centre: tuple[float, float], width: float, height: float, degrees: float) -> str:
    """Corners of a rectangle rotated from x towards y, which is clockwise in an image."""
    angle = math.radians(degrees)
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, height / 2] @ rotation + centre
    return " ".join(f"{c:.3f}" for c in corners.ravel())


def iou_with_corners(box: Box, corners: str, sense: int = 1) -> float:
    rotated = shapely.polygons(rotated_corners(np.array([box.coords]), sense))  # type: ignore[arg-type]
    return float(iou_polygons(rotated, shapely.polygons([np.array(corners.split(), float).reshape(4, 2)]))[0, 0])


@pytest.mark.parametrize("degrees", [0, 20, 44, 70, 90, 110, 135, 179, -30])
def test_dota_quadrilaterals_become_boxes_rotated_in_the_right_direction(degrees: float, tmp_path: Path) -> None:
    corners = quad((100, 50), 60, 12, degrees)
    outcome = run_convert("dota", write_dota(tmp_path / "in", f"{corners} ship 0"), tmp_path / "out")
    (box,) = outcome.rows[0].example.target
    assert isinstance(box, Box)
    assert abs(box.coords[4]) <= 45.001
    assert iou_with_corners(box, corners) > 0.95
    if abs(box.coords[4]) > 10:
        assert iou_with_corners(box, corners, sense=-1) < 0.8


def test_dota_boxes_are_axis_aligned_envelopes_on_request(tmp_path: Path) -> None:
    folder = write_dota(tmp_path / "in", "50 10 90 40 60 80 20 50 ship 0", "0 0 1 1 2 2 3 3 ship 0")
    outcome = run_convert("dota", folder, tmp_path / "out", boxes="horizontal")
    assert [row.example.target for row in outcome.rows] == [(Box((20, 10, 90, 80), "ship"),)]
    assert "polygon with positive area" in outcome.reasons[2]
    with pytest.raises(DataError, match="option boxes: expected rotated or horizontal, found 'round'"):
        run_convert("dota", folder, tmp_path / "none", boxes="round")


def test_dota_yields_one_record_per_image_and_class(tmp_path: Path) -> None:
    folder = write_dota(
        tmp_path / "val",
        *("imagesource:GoogleEarth", "gsd:0.25"),
        f"{quad((50, 50), 20, 10, 30)} small-vehicle 0",
        f"{quad((20, 20), 20, 10, 0)} ground track field 1",
        f"{quad((80, 50), 20, 10, 60)} small-vehicle 1",
        "",
    )
    outcome = run_convert("dota", folder, tmp_path / "out")
    vehicles, field = outcome.rows
    assert vehicles.example.images == ("images/P1.png",)
    assert vehicles.example.question == "Give me the location of every small vehicle in the image."
    assert [b.label for b in vehicles.example.target if isinstance(b, Box)] == ["small-vehicle", "small-vehicle"]
    assert (vehicles.extra, field.extra) == ({"difficult": [1]}, {"difficult": [0]})
    assert field.example.question == "Give me the location of every ground track field in the image."
    example = vehicles.example
    assert (example.gsd, example.sensor, example.split, example.frame.scale) == (
        *(0.25, "GoogleEarth", "validation"),
        (200.0, 100.0),
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1 2 3 4 5 6 7 ship 0", "expected x1 y1 x2 y2 x3 y3 x4 y4 class difficult"),
        ("1 2 3 4 5 6 7 8", "expected x1 y1"),
        ("1 2 nan 4 5 6 7 8 ship 0", "expected x1 y1"),
        ("1 2 1e99 4 5 6 7 8 ship 0", "corners in pixels"),
        ("5 5 5 5 5 5 5 5 ship 0", "polygon with positive area"),
        ("0 0 1 1 2 2 3 3 ship 0", "polygon with positive area"),
        ("0.1 0.2 0.3 0.2 0.3 0.4 0.1 0.4 ship 0", "expected corners in pixels, found fractions of the image"),
        ("0.9 0.5 1.0 0.9 0.9 1.0 0.8 0.6 ship 0", "expected corners in pixels, found fractions of the image"),
        ("300 10 340 10 340 30 300 30 ship 0", "expected a box inside the image, 200 x 100 pixels, found 300, 10, 340"),
        ("-90 10 -20 10 -20 30 -90 30 ship 0", "expected a box inside the image"),
        ("\x00\x01", "expected x1 y1"),
    ],
)
def test_only_invalid_dota_lines_are_quarantined(line: str, reason: str, tmp_path: Path) -> None:
    folder = write_dota(tmp_path / "in", "gsd:null", line, f"{quad((50, 50), 20, 10, 30)} ship 0")
    outcome = run_convert("dota", folder, tmp_path / "out")
    assert [(row.example.gsd, len(row.example.target)) for row in outcome.rows] == [(None, 1)]
    assert list(outcome.reasons) == [2]
    assert reason in outcome.reasons[2]
    has_other_class = line.startswith("1 2 3 4 5 6 7 ship")
    assert any("lack objects of their class" in note for note in outcome.counts.notes) != has_other_class


def test_dota_file_without_image_is_quarantined_and_without_objects_skipped(tmp_path: Path) -> None:
    folder = write_dota(tmp_path / "in", f"{quad((50, 50), 20, 10, 30)} ship 0")
    shutil.move(folder / "images" / "P1.png", tmp_path / "P1.png")
    (folder / "images" / "P1.png").symlink_to(tmp_path / "P1.png")
    (folder / "labelTxt" / "P2.txt").write_text("imagesource:GoogleEarth\n")
    outcome = run_convert("dota", folder, tmp_path / "out")
    assert (outcome.rows, outcome.counts.passed_over) == ([], 1)
    assert "expected an image P1.png (or .jpg, ...) below" in outcome.quarantine[0].reason


@pytest.mark.parametrize("boxes", ["rotated", "horizontal"])
def test_dota_corners_may_exceed_the_image_slightly(boxes: str, tmp_path: Path) -> None:
    folder = write_dota(tmp_path / "in", "150 10 204.5 10 204.5 30 150 30 ship 0", "-3 -2 20 -2 20 30 -3 30 ship 0")
    outcome = run_convert("dota", folder, tmp_path / "out", boxes=boxes)
    assert [len(row.example.target) for row in outcome.rows] == [2]
    assert outcome.quarantine == []


@pytest.mark.parametrize("orientation", [3, 6])
def test_dota_labels_of_pictures_with_an_exif_rotation_are_quarantined(orientation: int, tmp_path: Path) -> None:
    folder = write_dota(tmp_path / "in", f"{quad((50, 50), 20, 10, 30)} ship 0")
    (folder / "images" / "P1.png").unlink()
    write_scene(folder / "images" / "P1.jpg", orientation=orientation)
    outcome = run_convert("dota", folder, tmp_path / "out")
    assert outcome.rows == []
    (item,) = outcome.quarantine
    assert (
        f"expected an upright image, because boxes may refer to it as stored or as displayed; found the EXIF "
        f"orientation {orientation}" in item.reason
    )


@needs_rs
def test_real_dota_boxes_match_their_polygons(tmp_path: Path) -> None:
    source = RS / "B_images" / "dota"
    outcome = run_convert("dota", source, tmp_path / "out")
    assert {row.example.id: len(row.example.target) for row in outcome.rows} == {
        "P1888/small-vehicle": 14,
        "P1888/large-vehicle": 50,
    }
    lines = (source / "P1888.txt").read_text().split("\n")[2:]
    quads = {name: [line for line in lines if f" {name} " in line] for name in ("small-vehicle", "large-vehicle")}
    for row in outcome.rows:
        assert (row.example.images, row.example.frame.scale) == (("P1888.png",), (712.0, 557.0))
        assert row.example.gsd == pytest.approx(0.266, abs=1e-3)
        boxes = [b for b in row.example.target if isinstance(b, Box)]
        corners = [" ".join(line.split()[:8]) for line in quads[row.example.id.partition("/")[2]]]
        ious = [iou_with_corners(b, c) for b, c in zip(boxes, corners, strict=True)]
        assert np.mean(ious) > 0.9
        assert min(ious) > 0.7
        oblique = [(b, c) for b, c in zip(boxes, corners, strict=True) if 15 < abs(b.coords[4]) < 40]
        assert all(iou_with_corners(b, c, sense=-1) < 0.8 for b, c in oblique)
