"""Predictions over a scene with real engines: one in this process, and two rollout actors on Ray."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geovlm_ray.cli import main
from geovlm_ray.data.scenes import render_scene, scene_example
from tests.unit.oracle import TURNED, UTM

pytestmark = pytest.mark.slow
WORDS = ("--task", "object_detection", "--prompt", "find all ships .", "--window", "112", "--overlap", "0")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A GeoTIFF of three by two drawn scenes with ships."""
    examples = (scene_example("object_detection", 0, index) for index in range(400))
    tiles = [np.asarray(render_scene(e.images[0])) for e in examples if "ship" in e.question][:6]
    pixels = np.concatenate([np.concatenate(tiles[i : i + 3], axis=1) for i in (0, 3)]).transpose(2, 0, 1)
    path = tmp_path / "scene.tif"
    with rasterio.open(path, "w", "GTiff", 336, 224, 3, dtype="uint8", crs=UTM, transform=TURNED) as file:
        file.write(pixels)
    return path


def features(file: Path) -> list[tuple[np.ndarray, float]]:
    """Corners and score of each feature, from west to east."""
    found = json.loads(file.read_text())["features"]
    rows = [(np.array(f["geometry"]["coordinates"][0]), f["properties"]["score"]) for f in found]
    return sorted(rows, key=lambda row: tuple(row[0].min(axis=0)))


def test_map_is_the_same_however_many_engines_answer(scene: Path, tmp_path: Path, cluster: None) -> None:
    local, actors = tmp_path / "local.geojson", tmp_path / "actors.geojson"
    assert main(["predict", "tiny", str(scene), *WORDS, "--out", str(local), "--local"]) == 0
    two = ["placement.rollout.actors=2", "placement.rollout.num_cpus=0.5"]
    assert main(["predict", "tiny", str(scene), *two, *WORDS, "--out", str(actors)]) == 0
    one, other = features(local), features(actors)
    assert len(one) == len(other) > 3
    for (corners, score), (same, same_score) in zip(one, other, strict=True):
        assert np.array_equal(corners, same)
        assert score == pytest.approx(same_score, abs=1e-4)
    assert not (tmp_path / "local.geojson.unfinished").exists()


def test_model_is_measured_on_the_map(scene: Path, tmp_path: Path) -> None:
    truth, out = tmp_path / "truth.geojson", tmp_path / "measured"
    assert main(["predict", "tiny", str(scene), *WORDS, "--out", str(truth), "--local"]) == 0
    words = ["--prompt", "find all {label}s .", "--window", "112", "--overlap", "0", "--label", "ship", "--local"]
    assert main(["evaluate", "tiny", "--geo", str(truth), "--scene", str(scene), *words, "--out", str(out)]) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["classes"]["ship"]["F1"] == 1.0
    assert results["classes"]["ship"]["true"] == len(features(truth))
    assert (out / "ship.geojson").is_file()
