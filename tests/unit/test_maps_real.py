"""Maps from real images: a Sentinel-2 band with coordinates, a DOTA image and a pair of LEVIR-CD without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from rasterio.warp import transform

from geovlm_ray.config import Config, load_config
from geovlm_ray.data.geo.composites import Composite
from geovlm_ray.evaluation.metrics.maps import MapObjects
from geovlm_ray.evaluation.settings import evaluation_config
from geovlm_ray.model.loading import model_folder
from geovlm_ray.serving.predict.evaluate_map import evaluate_map
from geovlm_ray.serving.predict.features import SceneFeatures
from geovlm_ray.serving.predict.run import predict
from geovlm_ray.serving.predict.settings import PredictSettings
from tests.rs import RS, needs_rs
from tests.unit.oracle import Oracle

pytestmark = needs_rs
PATCH = "S2A_MSIL2A_20170617T113321_4_55"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return evaluation_config(load_config("demo"), model_folder("tiny"), tmp_path_factory.mktemp("actors"))


def predicted(
    scenes: tuple[Path, ...], oracle: Oracle, config: Config, out: Path, task: str, side: int, **more: object
) -> SceneFeatures:
    settings = PredictSettings(task, "Find all objects .", side, side // 4, **more)  # type: ignore[arg-type]
    found, _ = predict([tuple(map(str, scenes))], settings, config, lambda _: oracle, out, lambda *_: None)  # type: ignore[arg-type,return-value]
    return found[0]


def test_sentinel_band_is_placed_on_the_map(tmp_path: Path, config: Config) -> None:
    band = RS / "A_images" / "bigearthnet_s2" / PATCH / f"{PATCH}_B04.tif"
    field = (30.0, 50.0, 70.0, 90.0)
    out = tmp_path / "map.geojson"
    predicted((band,), Oracle([field], 120, 120, 64, 16), config, out, "object_detection", 64)
    _, _, geometries, _ = pyogrio.raw.read(out)
    (shape,) = shapely.from_wkb(geometries)
    with rasterio.open(band) as file:
        assert file.crs.to_epsg() == 32629
        x, y = transform("EPSG:4326", file.crs, *shapely.get_coordinates(shape).T)
        columns, rows = ~file.transform * (np.array(x), np.array(y))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == pytest.approx(field, abs=1e-3)


def test_dota_image_gives_its_boxes_in_pixels(tmp_path: Path, config: Config) -> None:
    image = RS / "B_images" / "dota" / "P1888.png"
    lines = [line.split() for line in image.with_suffix(".txt").read_text().splitlines()[2:]]
    corners = np.array([list(map(float, words[:8])) for words in lines]).reshape(-1, 4, 2)
    low, high = corners.min(axis=1), corners.max(axis=1)
    boxes = [tuple(map(float, (*a, *b))) for a, b in zip(low, high, strict=True) if (b - a).min() >= 4]
    with rasterio.open(image) as file:
        size = (file.width, file.height)
    labels = [f"object {k}" for k in range(len(boxes))]  # each object its own class: no two may be merged
    oracle = Oracle(boxes, *size, 448, 112, labels=labels)
    found = predicted((image,), oracle, config, tmp_path / "map.gpkg", "object_detection", 448)
    assert found.georeference is None
    shapes = [feature.polygon for feature in found.features]
    names = [str(feature.properties["label"]) for feature in found.features]
    metrics = evaluate_map(
        MapObjects(np.array(shapes, dtype=object), tuple(names), np.ones(len(names))),
        MapObjects(np.array([shapely.box(*b) for b in boxes], dtype=object), tuple(labels), np.ones(len(boxes))),
        str(image),
        tmp_path,
    )
    assert metrics["all"]["recall"] == metrics["all"]["precision"] == 1.0
    assert metrics["all"]["position error p90, m"] < 0.01


def test_pair_of_levir_is_shown_as_two_pictures_of_each_window(tmp_path: Path, config: Config) -> None:
    folder = RS / "B_images" / "samples_LEVIR"
    first = sorted((folder / "A").iterdir())[0]
    with rasterio.open(first) as file:
        size = (file.width, file.height)
    oracle = Oracle([], *size, 128, 0, answer="a house was built")
    settings = {"overlap": 0, "composites": (Composite((1, 2, 3)),)}
    found, _ = predict(
        [(str(first), str(folder / "B" / first.name))],
        PredictSettings("change_captioning", "What changed?", 128, **settings),  # type: ignore[arg-type]
        config,
        lambda _: oracle,  # type: ignore[arg-type,return-value]
        tmp_path / "map.geojson",
        lambda *_: None,
    )
    assert len(found[0].features) == len(oracle.windows) > 1
    assert {feature.properties["answer"] for feature in found[0].features} == {"a house was built"}
