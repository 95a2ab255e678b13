"""Evaluation on the map: metrics against COCO's own, and the command with a map and its reference layer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from faster_coco_eval import COCO, COCOeval_faster
from rasterio.warp import transform

from geovlm_ray.cli import main
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import iou_hbb, match
from geovlm_ray.data.geo.scene import Scene
from geovlm_ray.evaluation.metrics.maps import MapObjects, map_metrics
from geovlm_ray.serving.predict.evaluate_map import read_map
from tests.unit.oracle import PLACE, UTM, scattered, write_scene
from tests.unit.test_formats_geojson import shape_of, write_layer

BOUNDS = (0.0, 0.0, 1000.0, 1000.0)


def objects(boxes: np.ndarray, labels: Sequence[str], scores: np.ndarray | None = None) -> MapObjects:
    shapes = np.array([shapely.box(*box) for box in boxes], dtype=object)
    return MapObjects(shapes, tuple(labels), np.ones(len(boxes)) if scores is None else scores)


def random_maps(seed: int) -> tuple[np.ndarray, list[str], np.ndarray, list[str], np.ndarray]:
    """Reference boxes and classes; found boxes near some of them and elsewhere, classes and scores."""
    rng = np.random.default_rng(seed)
    corners, sides = rng.uniform(0, 900, (60, 2)), rng.uniform(5, 90, (60, 2))
    truth = np.hstack([corners, corners + sides])
    labels = rng.choice(["ship", "tank", "plane"], 60).tolist()
    near = truth[:45] + rng.normal(0, 4, (45, 4))
    near = np.hstack([near[:, :2], np.maximum(near[:, 2:], near[:, :2] + 1)])
    other = rng.uniform(0, 900, (20, 2))
    found = np.vstack([near, near[:10] + 1, np.hstack([other, other + 30])])
    names = [*labels[:45], *labels[:10], *rng.choice(["ship", "tank", "plane"], 20).tolist()]
    return truth, labels, found, names, rng.random(len(found))


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_coco(seed: int) -> None:
    truth, labels, found, names, scores = random_maps(seed)
    metrics = map_metrics(objects(found, names, scores), objects(truth, labels), BOUNDS)
    ids = {name: k for k, name in enumerate(("ship", "tank", "plane"), 1)}

    def annotations(boxes: np.ndarray, classes: list[str], more: list[dict[str, float]]) -> list[dict[str, object]]:
        return [
            {"id": i, "image_id": 1, "category_id": ids[c], "bbox": [*b[:2], *(b[2:] - b[:2])], "iscrowd": 0,
             "area": float(np.prod(b[2:] - b[:2])), **m}
            for i, (b, c, m) in enumerate(zip(boxes, classes, more, strict=True), 1)
        ]  # fmt: skip

    reference = COCO(
        {
            "images": [{"id": 1, "width": 1000, "height": 1000}],
            "categories": [{"id": k, "name": name} for name, k in ids.items()],
            "annotations": annotations(truth, labels, [{}] * len(truth)),
        }
    )
    evaluator = COCOeval_faster(
        reference,
        reference.loadRes(annotations(found, names, [{"score": s} for s in scores])),
        "bbox",
        print_function=lambda *_: None,
    )
    evaluator.run()
    assert metrics["all"]["AP@[.5:.95]"] == pytest.approx(evaluator.stats[0], abs=1e-9)
    assert metrics["all"]["AP@0.5"] == pytest.approx(evaluator.stats[1], abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_the_maximum_matching(seed: int) -> None:
    truth, labels, found, names, scores = random_maps(seed)
    metrics = map_metrics(objects(found, names, scores), objects(truth, labels), BOUNDS)
    right = 0
    for name, row in metrics["classes"].items():
        mine, true = (boxes[np.array(classes) == name] for boxes, classes in ((found, names), (truth, labels)))
        iou = iou_hbb(mine, true)
        hits = int((iou[match((iou >= 0.5).astype(np.float64))] >= 0.5).sum())
        assert (row["true"], row["found"], row["right"]) == (len(true), len(mine), hits)
        assert row["F1"] == pytest.approx(2 * hits / (len(true) + len(mine)))
        right += hits
    assert metrics["all"]["right"] == right
    assert metrics["all"]["precision"] == right / len(found)
    assert sum(row["true"] for row in metrics["sizes"].values()) == len(truth)
    assert sum(row["found"] for row in metrics["sizes"].values()) == len(found)
    assert np.sum(metrics["areas"]["true"]) == len(truth)


def test_errors_of_position_sizes_and_areas_are_in_metres() -> None:
    truth = np.array([[0, 0, 10, 10], [990, 990, 1000, 1000], [500, 20, 700, 220]], dtype=float)
    found = truth[[0, 2]] + [3, 0, 3, 0]
    metrics = map_metrics(objects(found, ["a", "a"]), objects(truth, ["a"] * 3), BOUNDS)
    assert metrics["all"]["position error, m"] == pytest.approx(3)
    assert metrics["all"]["recall"] == pytest.approx(2 / 3)
    assert metrics["sizes"]["8 to 32 m"] == {"true": 2, "found": 1, "precision": 1.0, "recall": 0.5}
    assert metrics["sizes"]["128 m and above"]["recall"] == 1.0
    true = metrics["areas"]["true"]
    assert (true[0][3], true[3][0], true[3][2]) == (1, 1, 1)  # north-east, south-west, south
    assert metrics["areas"]["mean absolute error"] == 1 / 16


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", None])
def test_plane_of_a_scene_is_in_metres(crs: str | None, tmp_path: Path) -> None:
    place = PLACE.transform
    if crs == "EPSG:4326":
        (x,), (y,) = transform(UTM, crs, [500_000], [4_100_000])
        place = Affine.translation(x, y) @ Affine.scale(1e-5, -1e-5)
    path = write_scene(tmp_path / "a.tif", 300, 200, crs=crs, transform=place if crs else Affine.identity())
    with Scene(str(path)) as scene:
        ends = scene.metres(np.array([[100.0, 100.0], [160.0, 180.0]]))
    distance = np.linalg.norm(ends[1] - ends[0])
    expected = {"EPSG:32633": 50.0, None: 100.0}.get(crs)
    if expected is None:
        # Pixels of 1e-5 degrees: 1.11195 m north, less east by the cosine of the latitude of 37 degrees.
        expected = float(np.hypot(60 * 1.11195 * np.cos(np.radians(37.0445)), 80 * 1.11195))
    assert distance == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("ending", [".geojson", ".gpkg"])
def test_command_compares_a_map_with_its_reference(
    ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = scattered(12, 600, 500, (20, 60))
    scene = write_scene(tmp_path / "port.tif", 600, 500, boxes)
    outside = (2000.0, 2000.0, 2040.0, 2040.0)
    labels = ["ship", "tank"] * 6
    truth = write_layer(tmp_path / f"truth{ending}", [shape_of(b) for b in (*boxes, outside)], kind=[*labels, "ship"])
    shifted = [tuple(np.add(box, [4, 0, 4, 0])) for box in boxes[:9]]
    found = write_layer(
        tmp_path / "map.geojson", [shape_of(b) for b in (*shifted, outside)], label=[*labels[:9], "ship"]
    )
    out = tmp_path / "out"
    words = ["evaluate", str(found), "--geo", str(truth), "--scene", str(scene), "--class", "kind", "--out", str(out)]
    assert main(words) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["all"]["true"], results["all"]["found"] == (12, 9)
    assert results["all"]["position error, m"] == pytest.approx(2.0, abs=0.01)  # 4 pixels of half a metre
    assert results["classes"]["ship"]["recall"] == pytest.approx(5 / 6)
    assert results["unit"] == "m"
    assert "ship" in capsys.readouterr().out
    page = (out / "map.html").read_text()
    assert page.count('class="is_true"') == 12
    with rasterio.open(out / "map.png") as picture:
        colours = {tuple(c) for c in picture.read().reshape(3, -1).T[::7].tolist()}
    assert {(0x25, 0x63, 0xEB), (0xF9, 0x73, 0x16)} <= colours


def test_reference_elsewhere_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = write_scene(tmp_path / "port.tif", 200, 200)
    truth = write_layer(tmp_path / "truth.geojson", [shape_of((900, 900, 950, 950))], label=["ship"])
    words = ["evaluate", str(truth), "--geo", str(truth)]
    assert main([*words, "--scene", str(scene)]) == 1
    assert f"expected polygons in {scene}, found none of 1 features there" in capsys.readouterr().err
    assert main(words) == 1
    assert "--scene: expected the raster file of the reference objects, found none" in capsys.readouterr().err


def test_classes_of_a_map_are_those_of_the_reference(tmp_path: Path) -> None:
    scene = str(write_scene(tmp_path / "port.tif", 600, 500))
    shapes = [shape_of(box) for box in scattered(3, 600, 500, (20, 60))]
    one = write_layer(tmp_path / "one.geojson", shapes, label=["ship", "tank", None])
    assert read_map(one, scene, ["ship"]).labels == ("ship", "tank", "ship")
    with pytest.raises(
        DataError, match=r"one\.geojson, feature 3: expected the name of a class.*the truth has 2 classes"
    ):
        read_map(one, scene, ["ship", "tank"])
    spelled = write_layer(tmp_path / "spelled.geojson", shapes, label=["Storage tank", "storage_tank", "Ship"])
    assert read_map(spelled, scene, ["storage-tank", "ship"]).labels == ("storage-tank", "storage-tank", "ship")
    bare = write_layer(tmp_path / "bare.geojson", shapes, note=["a", "b", "c"])
    assert read_map(bare, scene, ["ship"]).labels == ("ship",) * 3
    empty = tmp_path / "empty.geojson"
    empty.write_text('{"type": "FeatureCollection", "features": []}')
    assert read_map(empty, scene, ["ship", "tank"]).labels == ()
