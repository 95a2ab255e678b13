"""Maps: scenes with vector layers become windows with boxes, in splits by area."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image
from rasterio.warp import transform

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import target_boxes
from geovlm_ray.data.formats.geojson_windows import OPTIONS
from geovlm_ray.data.geo.layers import read_layer
from geovlm_ray.data.geo.scene import Scene
from tests.unit.conversion import Conversion, run_convert
from tests.unit.oracle import PLACE, UTM, write_scene

ALL_TRAIN = {"splits": "100,0,0", "size": "200"}
SHIP, TANK, LONG = (20, 30, 60, 50), (150, 100, 170, 120), (180, 20, 260, 40)
"""In the first window, in the first one, and three quarters of it in the second one."""


def degrees(points: np.ndarray) -> np.ndarray:
    return np.column_stack(transform(UTM, "EPSG:4326", *PLACE.coordinates(points).T))


def shape_of(box: Sequence[float], place: Callable[[np.ndarray], np.ndarray] = degrees) -> shapely.Geometry:
    return shapely.transform(shapely.box(*box), place)


def write_layer(path: Path, shapes: Sequence[Any], crs: str | None = "EPSG:4326", **columns: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = [np.array(column, dtype=object) for column in columns.values()]
    kind = shapes[0].geom_type if len({s.geom_type for s in shapes}) == 1 else "Unknown"
    pyogrio.raw.write(path, shapely.to_wkb(shapes), values, list(columns), geometry_type=kind, crs=crs)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A scene of two by one windows, with three objects."""
    folder = tmp_path / "maps"
    folder.mkdir()
    write_scene(folder / "port.tif", 400, 200, [SHIP, TANK, LONG])
    shapes = [shape_of(box) for box in (SHIP, TANK, LONG)]
    write_layer(folder / "port.geojson", shapes, **{"class": ["ship", "storage_tank", "ship"]})
    return folder


def boxes_of(conversion: Conversion) -> dict[str, list[tuple[int, ...]]]:
    rows = [row.example for row in conversion.rows]
    return {e.id: [tuple(round(v) for v in box.coords) for box in target_boxes(e.target)] for e in rows}


@pytest.mark.parametrize(
    ("ending", "crs"), [(".geojson", "EPSG:4326"), (".gpkg", UTM), (".fgb", "EPSG:3857"), (".shp", UTM)]
)
def test_objects_become_boxes_in_pixels_of_windows(ending: str, crs: str, source: Path, tmp_path: Path) -> None:
    (source / "port.geojson").unlink()
    shapes = [
        shapely.transform(shape_of(box, PLACE.coordinates), lambda xy: np.column_stack(transform(UTM, crs, *xy.T)))
        for box in (SHIP, TANK, LONG)
    ]
    write_layer(source / f"port{ending}", shapes, crs, label=["ship", "storage_tank", "ship"])
    found = run_convert("geojson", source, tmp_path / "out", **ALL_TRAIN)
    tight = {"size": "200", "boxes": "rotated"}
    assert boxes_of(found) == {
        "port/0,0/detection/ship": [SHIP],
        "port/0,0/detection/storage_tank": [TANK],
        "port/200,0/detection/ship": [(0, 20, 60, 40)],
    }
    examples = {row.example.id: row.example for row in found.rows}
    example = examples["port/0,0/detection/storage_tank"]
    assert example.question == "Give me the location of every storage tank in the image."
    assert (example.frame.width, example.frame.height, example.gsd) == (200, 200, pytest.approx(0.5))
    turned = run_convert("geojson", source, tmp_path / "rotated", **ALL_TRAIN | tight)
    assert boxes_of(turned)["port/0,0/detection/ship"] == [(*SHIP, 0)]
    with rasterio.open(source / "port.tif") as file:
        pixels = file.read().transpose(1, 2, 0)
    with rasterio.open(found.folder / example.images[0]) as file:
        assert np.array_equal(file.read().transpose(1, 2, 0), pixels[:, :200])


def test_tasks_of_windows(source: Path, tmp_path: Path) -> None:
    found = run_convert(
        "geojson", source, tmp_path / "out", **ALL_TRAIN, tasks="detection,grounding,counting,classification"
    )
    records = {row.example.id.removeprefix("port/"): row.example for row in found.rows}
    # A quarter of the long ship is in the first window: how many ships it shows cannot be said.
    assert sorted(records) == [
        "0,0/classes",
        "0,0/counting/storage_tank",
        "0,0/detection/ship",
        "0,0/detection/storage_tank",
        "0,0/grounding/storage_tank",
        "200,0/classes",
        "200,0/counting/ship",
        "200,0/detection/ship",
        "200,0/grounding/ship",
    ]
    assert records["200,0/counting/ship"].target == "1"
    assert records["0,0/classes"].target == ("ship", "storage_tank")
    assert records["200,0/classes"].target == ("ship",)
    assert records["200,0/classes"].labels == ("ship", "storage_tank")
    grounded = records["0,0/grounding/storage_tank"]
    assert grounded.question == "Where is the storage tank?"
    (box,) = target_boxes(grounded.target)
    assert box.coords == pytest.approx(TANK, abs=0.01)


def test_a_class_that_fills_windows_is_present_in_each(source: Path, tmp_path: Path) -> None:
    write_layer(source / "port.geojson", [shape_of((-5000, -5000, 9000, 150))], name=["water"])
    found = run_convert("geojson", source, tmp_path / "out", **ALL_TRAIN, tasks="detection,classification")
    assert [row.example.target for row in found.rows] == [("water",), ("water",)]


def test_scenes_of_one_place_are_in_one_split(tmp_path: Path) -> None:
    folder = tmp_path / "maps"
    folder.mkdir()
    for k, shift in enumerate((0.0, 130.0, 777.0)):
        path = write_scene(folder / f"date{k}.tif", 1200, 1000)
        with rasterio.open(path, "r+") as file:
            file.transform = file.transform @ Affine.translation(shift, 0)
    shapes = [shape_of((x, y, x + 20, y + 20)) for x in range(10, 1900, 40) for y in range(10, 990, 40)]
    write_layer(folder / "ships.gpkg", shapes, label=["ship"] * len(shapes))
    found = run_convert("geojson", folder, tmp_path / "out", size="100", splits="60,20,20")
    shown: dict[str, list[Any]] = {}
    for row in found.rows:
        scene, corner, *_ = row.example.id.split("/")
        left, top = map(int, corner.split(","))
        x = left + (0, 130, 777)[int(scene[-1])]
        shown.setdefault(row.example.split, []).append(shapely.box(x, top, x + 100, top + 100))
    assert set(shown) == {"train", "validation", "test"}
    areas = {split: shapely.union_all(windows) for split, windows in shown.items()}
    for a, b in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert areas[a].intersection(areas[b]).area == 0
    counts = Counter(row.example.split for row in found.rows)
    assert counts["train"] > counts["test"] > 0
    (note,) = [note for note in found.card["notes"] if note.startswith("windows: ")]
    assert note.startswith(f"windows: {counts['train']} train") or "windows on the border of areas" in note


def test_folders_named_after_splits_decide(source: Path, tmp_path: Path) -> None:
    (source / "val").mkdir()
    for name in ("port.tif", "port.geojson"):
        (source / name).rename(source / "val" / name)
    found = run_convert("geojson", source, tmp_path / "out", size="200")
    assert {row.example.split for row in found.rows} == {"validation"}


def test_scene_in_the_place_of_a_test_scene_is_test_data_too(source: Path, tmp_path: Path) -> None:
    (source / "test").mkdir()
    for name in ("port.tif", "port.geojson"):
        (source / "test" / name.replace("port", "later")).write_bytes((source / name).read_bytes())
    found = run_convert("geojson", source, tmp_path / "out", **ALL_TRAIN)
    assert {row.example.id.split("/detection")[0].split("/")[-2] for row in found.rows} == {"port", "later"}
    assert {row.example.split for row in found.rows} == {"test"}


def test_features_without_area_or_class_are_quarantined(source: Path, tmp_path: Path) -> None:
    shapes = [shape_of(SHIP), shapely.Point(15, 37), shape_of(TANK)]
    write_layer(source / "port.geojson", shapes, **{"class": ["ship", "ship", None]})
    found = run_convert("geojson", source, tmp_path / "out", **ALL_TRAIN)
    assert list(boxes_of(found)) == ["port/0,0/detection/ship"]
    assert found.reasons == {
        2: "expected a polygon with an area, found Point",
        3: "expected the name of a class, found None",
    }


def test_scene_without_georeference_has_a_layer_in_pixels(tmp_path: Path) -> None:
    folder = tmp_path / "maps"
    folder.mkdir()
    write_scene(folder / "a.tif", 200, 200, crs=None, transform=Affine.identity())
    write_layer(folder / "a.geojson", [shapely.box(*SHIP)], label=["ship"])
    found = run_convert("geojson", folder, tmp_path / "out", **ALL_TRAIN)
    assert boxes_of(found) == {"a/0,0/detection/ship": [SHIP]}
    assert found.rows[0].example.gsd is None


def test_layers_belong_to_the_scene_beside_them(tmp_path: Path) -> None:
    folder = tmp_path / "maps"
    for name, box in (("a", SHIP), ("b", TANK)):
        (folder / name).mkdir(parents=True)
        write_scene(folder / name / "scene.tif", 200, 200, crs=None, transform=Affine.identity())
        write_layer(folder / name / "scene.geojson", [shapely.box(*box)], label=["ship"])
    found = run_convert("geojson", folder, tmp_path / "out", **ALL_TRAIN)
    assert boxes_of(found) == {"a/scene/0,0/detection/ship": [SHIP], "b/scene/0,0/detection/ship": [TANK]}


def test_picture_of_a_map_is_no_scene(source: Path, tmp_path: Path) -> None:
    expected = boxes_of(run_convert("geojson", source, tmp_path / "out", **ALL_TRAIN))
    (source / "port.geojson").rename(source / "ships.geojson")
    write_scene(tmp_path / "look.tif", 400, 200, crs=None, transform=Affine.identity())
    Image.open(tmp_path / "look.tif").save(source / "ships.png")
    (source / "ships.html").write_text("<p>the page of a map</p>")
    found = run_convert("geojson", source, tmp_path / "again", **ALL_TRAIN)
    assert boxes_of(found) == expected
    assert any("1 rasters without a layer are left out, the first 'ships.png'" in note for note in found.counts.notes)


def test_composites_are_several_images(source: Path, tmp_path: Path) -> None:
    found = run_convert("geojson", source, tmp_path / "out", **ALL_TRAIN, bands="3,2,1;1/2")
    assert found.rows[0].example.images == ("images/port/0,0.png", "images/port/0,0-1.png")
    assert all((found.folder / image).is_file() for row in found.rows for image in row.example.images)


def two_layers(source: Path) -> None:
    (source / "port.geojson").unlink()
    write_layer(source / "port.gpkg", [shape_of(SHIP)], label=["ship"])
    pyogrio.raw.write(
        source / "port.gpkg", shapely.to_wkb([shape_of(TANK)]), [], [], layer="b", geometry_type="Polygon",
        crs="EPSG:4326",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda s: write_layer(s / "port.geojson", [shape_of(SHIP)], kind=["ship"]), {},
         r"port\.geojson: expected a column class or label or .* with classes, found kind; name it with class=COLUMN"),
        (lambda s: (s / "port.geojson").write_text("<OGRVRTDataSource/>"), {},
         r"port\.geojson: expected a vector layer \(GeoJSON, .*\), found b'<OGRVRT"),
        (lambda s: (s / "port.geojson").write_text('{"type": "FeatureCollection", "features": [{'), {},
         r"port\.geojson: expected a vector layer that GDAL reads, found"),
        (two_layers, {}, r"port\.gpkg: expected layer by option layer=NAME, found port, b"),
        (lambda s: (s / "port.tif").unlink(), {}, r"expected a scene .* found 0 rasters and 1 layers"),
        (lambda s: None, {"tasks": "segmentation"}, r"option tasks: expected names of detection, .*'segmentation'"),
        (lambda s: None, {"splits": "80,30,10"}, r"option splits: expected percents that sum to 100"),
        (lambda s: None, {"bands": "0,1"}, r"option bands: expected R,G,B"),
        (lambda s: None, {"overlap": "448"}, r"options overlap and visible"),
        (lambda s: None, {"range": "5,1"}, r"option range: expected LOW,HIGH"),
    ],
)  # fmt: skip
def test_unusable_layers_and_options_are_named(
    change: Callable[[Path], Any], options: dict[str, str], message: str, source: Path, tmp_path: Path
) -> None:
    change(source)
    with pytest.raises(DataError, match=message):
        run_convert("geojson", source, tmp_path / "out", **options)


def test_layer_without_coordinate_system_is_refused_on_a_map(source: Path, tmp_path: Path) -> None:
    (source / "port.geojson").unlink()
    write_layer(source / "port.shp", [shape_of(SHIP)], None, label=["ship"])
    found = run_convert("geojson", source, tmp_path / "out", **ALL_TRAIN)
    assert "expected a layer with a coordinate system, found none" in found.reasons[1]


@pytest.mark.parametrize("crs", [UTM, "EPSG:2154", "EPSG:3035", "EPSG:3857", "EPSG:3413"])
def test_layer_of_the_whole_world_lies_on_any_scene(crs: str, tmp_path: Path) -> None:
    (x,), (y,) = transform("EPSG:4326", crs, [15.0], [37.0])
    scene = write_scene(tmp_path / "scene.tif", 400, 200, crs=crs, transform=Affine(10, 0, x, 0, -10, y))
    around = shapely.transform(
        shapely.box(x + 100, y - 300, x + 400, y - 100), lambda xy: np.column_stack(transform(crs, "EPSG:4326", *xy.T))
    )
    cells = [shapely.box(lon, lat, lon + 10, lat + 10) for lon in range(-180, 180, 10) for lat in range(-90, 90, 10)]
    world = shapely.box(-180, -90, 180, 90)
    layer = read_layer(write_layer(tmp_path / "a.geojson", [*cells, world, around], label=["land"] * 650))
    with Scene(str(scene)) as opened:
        shapes = layer.in_pixels(opened)
    assert len(shapes) == len(layer.labels) == 650
    assert all(np.isfinite(shapely.get_coordinates(shape)).all() for shape in shapes)
    outline = shapely.box(0, 0, 400, 200)
    found = shapely.STRtree(shapes).query(outline, predicate="intersects")
    assert sorted(found.tolist()) == [cells.index(shapely.box(10, 30, 20, 40)), 648, 649]
    assert shapes[648].covers(outline)
    assert shapes[649].bounds == pytest.approx((10, 10, 40, 30), abs=0.01)


def test_a_column_or_one_name_gives_the_class(source: Path) -> None:
    path = write_layer(source / "port.geojson", [shape_of(SHIP)], kind=["cargo ship"], Type=["vessel"])
    assert read_layer(path).labels == ("vessel",)
    assert read_layer(path, "KIND").labels == ("cargo ship",)
    assert read_layer(path, label="boat").labels == ("boat",)


def test_documented_options_exist() -> None:
    text = (Path(__file__).parents[2] / "docs" / "maps.md").read_text()
    assert [name for name in OPTIONS if f"`{name}=" not in text] == []


def test_map_of_predictions_is_read_back(source: Path, tmp_path: Path) -> None:
    features = json.loads((source / "port.geojson").read_text())
    for feature in features["features"]:
        feature["properties"] = {"scene": "port.tif", "label": feature["properties"]["class"], "score": 0.9}
    (source / "port.geojson").write_text(json.dumps(features))
    found = run_convert("geojson", source, tmp_path / "out", **ALL_TRAIN)
    assert boxes_of(found)["port/0,0/detection/ship"] == [SHIP]
