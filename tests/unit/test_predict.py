"""Predictions over scenes, with engines that know the answers: files, resumption, answers of every kind."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image
from pycocotools.coco import COCO
from rasterio.crs import CRS
from rasterio.warp import transform

from geovlm_ray.cli import main
from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import ConfigError, DataError, RunError
from geovlm_ray.core.geometry import hbb, iou_hbb
from geovlm_ray.core.schema import Box, Example, Sample
from geovlm_ray.data.answer_format import AnswerFormat
from geovlm_ray.data.geo.composites import Composite
from geovlm_ray.data.geo.scene import Georeference, Scene, Window
from geovlm_ray.evaluation.confidence import mean_probability
from geovlm_ray.evaluation.settings import evaluation_config
from geovlm_ray.model.config import PromptConfig
from geovlm_ray.model.loading import load_processor, model_folder
from geovlm_ray.serving.predict.answers import WindowAnswer, rendered_windows
from geovlm_ray.serving.predict.features import Feature, SceneFeatures, write_features
from geovlm_ray.serving.predict.objects import features_of, with_one_name
from geovlm_ray.serving.predict.outputs import save_picture
from geovlm_ray.serving.predict.quick_look import preview
from geovlm_ray.serving.predict.run import predict, unfinished_folder
from geovlm_ray.serving.predict.seams import Detection, merged
from geovlm_ray.serving.predict.settings import PredictSettings
from geovlm_ray.serving.predict.sources import scene_names, scene_paths
from geovlm_ray.tasks.answers.class_names import class_names
from tests.unit.oracle import PLACE, TURNED, UTM, Oracle, scattered, write_scene

WIDTH, HEIGHT, SIDE, OVERLAP = 1100, 800, 300, 90
OBJECTS = scattered(25, WIDTH, HEIGHT, (12, 85))
SETTINGS = PredictSettings("object_detection", "Find all ships.", SIDE, OVERLAP)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return evaluation_config(load_config("demo"), model_folder("tiny"), tmp_path_factory.mktemp("actors"))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene(tmp_path_factory.mktemp("scenes") / "scene.tif", WIDTH, HEIGHT, OBJECTS)


def oracle(**settings: Any) -> Oracle:
    return Oracle(OBJECTS, WIDTH, HEIGHT, SIDE, OVERLAP, **settings)


def predicted(
    scene: Path, out: Path, config: Config, engines: Oracle, settings: PredictSettings = SETTINGS, **more: Any
) -> SceneFeatures:
    """Predict over one scene."""
    return predict([(str(scene),)], settings, config, lambda _: engines, out, lambda *_: None, **more)[0][0]  # type: ignore[arg-type,return-value]


def on_the_map(objects: list[tuple[float, ...]]) -> np.ndarray:
    """Corners of objects in UTM, [n, 4, 2], in metres."""
    corners = np.array([[(x1, y1), (x2, y1), (x2, y2), (x1, y2)] for x1, y1, x2, y2 in objects])
    return PLACE.coordinates(corners.reshape(-1, 2)).reshape(-1, 4, 2)


def read(file: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Metadata and geometries of a file, by GDAL."""
    meta, _, geometries, _ = pyogrio.raw.read(file)
    return meta, shapely.from_wkb(geometries)


@pytest.mark.parametrize("ending", ["geojson", "gpkg", "fgb"])
def test_every_object_is_once_on_the_map_to_a_centimetre(
    ending: str, scene: Path, tmp_path: Path, config: Config
) -> None:
    out = tmp_path / f"map.{ending}"
    assert len(predicted(scene, out, config, oracle()).features) == len(OBJECTS)
    meta, shapes = read(out)
    assert meta["crs"] == ("EPSG:4326" if ending == "geojson" else UTM)
    if ending == "geojson":
        assert all(shape.exterior.is_ccw for shape in shapes)
        shapes = shapely.transform(shapes, lambda xy: np.column_stack(transform(meta["crs"], UTM, *xy.T)))
    placed = [shapely.get_coordinates(shape)[:-1] for shape in shapes]
    for corners in on_the_map(OBJECTS):
        distances = [max(np.linalg.norm(found - corner, axis=1).min() for corner in corners) for found in placed]
        assert min(distances) < 0.01
    assert not unfinished_folder(out).exists()
    assert out.with_suffix(".png").is_file()
    assert "<script" in out.with_suffix(".html").read_text()


def test_coco_and_csv(scene: Path, tmp_path: Path, config: Config) -> None:
    labels = ["ship" if k % 2 else "plane" for k in range(len(OBJECTS))]
    predicted(scene, tmp_path / "map.json", config, oracle(labels=labels))
    coco = COCO(str(tmp_path / "map.json"))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())].count("ship") == 1
    boxes = [a["bbox"] for a in coco.loadAnns(coco.getAnnIds())]
    found = hbb([(x, y, x + w, y + h) for x, y, w, h in boxes])
    assert (iou_hbb(hbb(OBJECTS), found).max(axis=1) > 0.99).all()
    predicted(scene, tmp_path / "map.csv", config, oracle(labels=labels))
    with (tmp_path / "map.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == {"ship", "plane"}
    longitudes, latitudes = (np.array([float(row[name]) for row in rows]) for name in ("longitude", "latitude"))
    xs, _ = transform("EPSG:4326", UTM, longitudes, latitudes)
    centres = on_the_map(OBJECTS).mean(axis=1)
    assert np.abs(np.sort(xs) - np.sort(centres[:, 0])).max() < 0.01


def test_csv_polygon_across_the_antimeridian_is_in_one_piece(tmp_path: Path) -> None:
    where = Georeference(CRS.from_epsg(32701), Affine(10, 0, 179_000, 0, -10, 8_000_000))
    features = [Feature(shapely.box(0, 0, 3000, 100), {"label": "reef"})]
    write_features([SceneFeatures("sea", 3000, 100, where, features)], tmp_path / "map.csv")
    (row,) = csv.DictReader((tmp_path / "map.csv").read_text().splitlines())
    west, _, east, _ = shapely.from_wkt(row["polygon_wgs84"]).bounds
    assert (west, east) == pytest.approx((179.9677, 180.2509), abs=1e-3)
    assert float(row["longitude"]) == pytest.approx(-179.8907, abs=1e-3)


def test_scene_without_georeference_gives_pixels(tmp_path: Path, config: Config) -> None:
    scene = write_scene(tmp_path / "plain.tif", WIDTH, HEIGHT, OBJECTS, crs=None, transform=None)
    predicted(scene, tmp_path / "map.geojson", config, oracle())
    _, shapes = read(tmp_path / "map.geojson")
    assert (iou_hbb(hbb(OBJECTS), hbb([shape.bounds for shape in shapes])).max(axis=1) > 0.99).all()
    both = [SceneFeatures("a", 9, 9, None), SceneFeatures("b", 9, 9, PLACE)]
    with pytest.raises(ConfigError, match=r"expected scenes with a georeference, or all without, found none in a"):
        write_features(both, tmp_path / "both.geojson")


@pytest.mark.parametrize("interrupted", [0, 1, 5])
def test_interrupted_prediction_goes_on_and_writes_the_same_file(
    interrupted: int, scene: Path, tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geovlm_ray.serving.predict.answers.BATCH", 2)
    predicted(scene, tmp_path / "whole.geojson", config, oracle())
    out = tmp_path / "map.geojson"
    engines = oracle(dies_after=interrupted)
    with pytest.raises(KeyboardInterrupt):
        predicted(scene, out, config, engines)
    assert engines.closed
    with (unfinished_folder(out) / "answers.jsonl").open("ab") as file:
        file.write(b'{"source": 0, "win')
    with pytest.raises(
        ConfigError, match=r"expected unfinished answers with question = 'Other', found 'Find all ships"
    ):
        predicted(scene, out, config, oracle(), replace(SETTINGS, question="Other"))
    rest = oracle()
    predicted(scene, out, config, rest)
    assert rest.asked <= len(rest.windows) - interrupted // 2 * 2
    names = [path.read_text().replace('"map"', '"whole"') for path in (out, tmp_path / "whole.geojson")]
    assert names[0] == names[1]


def test_changed_scene_is_refused_until_it_is_accepted(scene: Path, tmp_path: Path, config: Config) -> None:
    copy, out = tmp_path / "copy.tif", tmp_path / "map.geojson"
    copy.write_bytes(scene.read_bytes())
    with pytest.raises(KeyboardInterrupt):
        predicted(copy, out, config, oracle(dies_after=3))
    with rasterio.open(copy, "r+") as file:
        file.write(file.read(1) // 2, 1)
    with pytest.raises(RunError, match=r"unfinished answers .* was begun with other content: scene .*copy\.tif"):
        predicted(copy, out, config, oracle())
    predicted(copy, out, config, oracle(), accept_changes=True)


def test_sources_in_another_order_are_refused(scene: Path, tmp_path: Path, config: Config) -> None:
    other, out = tmp_path / "other.tif", tmp_path / "map.geojson"
    other.write_bytes(scene.read_bytes())
    pair = (str(scene), str(other))
    with pytest.raises(KeyboardInterrupt):
        predict([pair], SETTINGS, config, lambda _: oracle(dies_after=1), out, lambda *_: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(ConfigError, match="expected unfinished answers with sources = "):
        predict([pair[::-1]], SETTINGS, config, lambda _: oracle(), out, lambda *_: None)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("line", [{}, {"source": "a"}, {"window": [1]}, {"frame": 3}, {"response": 1}, {"samples": 1}])
def test_damaged_answers_are_named(line: dict[str, Any], scene: Path, tmp_path: Path, config: Config) -> None:
    out = tmp_path / "map.geojson"
    with pytest.raises(KeyboardInterrupt):
        predicted(scene, out, config, oracle(dies_after=0))
    good = {"source": 0, "window": [0, 0, 9, 9], "response": "a", "confidence": 1, "frame": "percent", "samples": []}
    content = {**good, **line} if line else {}
    (unfinished_folder(out) / "answers.jsonl").write_text(json.dumps(content) + "\n")
    with pytest.raises(DataError, match=r"answers\.jsonl, line 1: expected an answer about a window, found"):
        predicted(scene, out, config, oracle())


def test_answers_without_boxes_are_polygons_of_their_windows(scene: Path, tmp_path: Path, config: Config) -> None:
    settings = replace(SETTINGS, task="scene_classification", samples=3)
    engines = oracle(answer="Harbour")
    found = predicted(scene, tmp_path / "map.gpkg", config, engines, settings, reasoning=True).features
    assert len(found) == len(engines.windows)
    first = dict(found[0].properties)
    assert first == {
        "answer": "Harbour",
        "score": pytest.approx(0.862, abs=1e-3),
        "agreement": 1.0,
        "reasoning": "look",
    }
    assert found[0].polygon.bounds == (0, 0, SIDE, SIDE)
    grounded = predicted(
        scene, tmp_path / "two.gpkg", config, oracle(), replace(SETTINGS, task="grounded_description")
    ).features
    assert len(grounded) == len(OBJECTS) + len(engines.windows)


def test_windows_without_data_are_not_asked_about(tmp_path: Path, config: Config) -> None:
    scene = write_scene(tmp_path / "half.tif", WIDTH, HEIGHT, OBJECTS, nodata=0)
    with rasterio.open(scene, "r+") as file:
        file.write(np.zeros((3, HEIGHT, 600), np.uint8), window=rasterio.windows.Window(0, 0, 600, HEIGHT))
    engines = oracle()
    predicted(scene, tmp_path / "map.geojson", config, engines)
    assert engines.asked == sum(window.right > 600 for window in engines.windows) < len(engines.windows)


def test_change_pairs_and_composites_are_several_pictures(tmp_path: Path, config: Config, scene: Path) -> None:
    seen: list[int] = []

    class Counting(Oracle):
        def submit(self, prompts: Any, **sampling: Any) -> Any:
            seen.extend(len(prompt.example.images) for prompt in prompts)
            return super().submit(prompts, **sampling)

    engines = Counting(OBJECTS, WIDTH, HEIGHT, SIDE, OVERLAP, answer="no change")
    settings = replace(
        SETTINGS, task="change_captioning", composites=(Composite.parse("1,2,3"), Composite.parse("1/2"))
    )
    sources = [(str(scene), str(scene))]
    predict(sources, settings, config, lambda _: engines, tmp_path / "map.geojson", lambda *_: None)  # type: ignore[arg-type,return-value]
    assert set(seen) == {4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: folder / "none.tif", r"none\.tif: expected a raster file, a folder of them or a converted"),
        (lambda folder: folder, r"expected a raster file, a folder of them or a converted dataset, found none"),
    ],
)
def test_absent_sources_are_named(change: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        scene_paths([str(change(tmp_path))])


def test_polygons_become_their_smallest_rectangles(tmp_path: Path, config: Config) -> None:
    path = write_scene(tmp_path / "scene.tif", 400, 200)
    answering = Oracle([], 400, 200, SIDE, OVERLAP, answer="[[10, 10, 20, 10, 20, 20, 10, 20]]")
    found = predicted(path, tmp_path / "map.gpkg", config, answering)
    assert len(found.features) == len(answering.windows)
    first = answering.windows[0]
    box = shapely.box(*(np.array([10, 10, 20, 20]) / 100 * [first.width, first.height, first.width, first.height]))
    assert min(box.hausdorff_distance(feature.polygon) for feature in found.features) < 1


def test_quick_look_of_a_pair_is_on_the_grid_of_the_earlier_scene(tmp_path: Path) -> None:
    earlier = write_scene(tmp_path / "earlier.tif", 200, 100)
    finer = write_scene(tmp_path / "later.tif", 400, 200, [(100, 60, 140, 80)], transform=TURNED @ Affine.scale(0.5))
    with Scene(str(earlier)) as scene:
        features = SceneFeatures.of(scene, [Feature(shapely.box(50, 30, 70, 40), {})])
    picture, shown = preview(str(finer), (), features, str(earlier))
    assert picture.size == (200, 100)
    rows, columns = np.nonzero(np.asarray(picture.convert("L")) > 200)
    assert shown.features[0].polygon.bounds == pytest.approx(
        (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), abs=1.01
    )


def test_sources_are_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b/2.tif", "b/1.tif", "a.png", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = scene_paths([str(tmp_path / "b"), str(tmp_path / "*.png"), str(tmp_path / "b/1.tif")])
    assert [Path(path).name for path in found] == ["1.tif", "2.tif", "a.png"]
    (tmp_path / "b/map.geojson.unfinished/pictures").mkdir(parents=True)
    (tmp_path / "b/map.geojson.unfinished/pictures/1.bmp").write_bytes(b"")
    save_picture(Image.new("RGB", (9, 9)), tmp_path / "b/map.png")
    assert scene_paths([str(tmp_path / "b"), str(tmp_path / "b/**/*.[tpb]*[fgp]"), str(tmp_path / "a.png")]) == found
    assert scene_paths([str(tmp_path / "b/map.png")]) == [str(tmp_path / "b/map.png")], "a file that is named"
    before = scene_paths([str(tmp_path / "a.png"), str(tmp_path / "a.png")], repeated=True)
    assert [Path(path).name for path in before] == ["a.png", "a.png"], "one scene before several later ones"


def test_scenes_of_one_name_are_told_apart_by_their_folders() -> None:
    assert scene_names(["/data/a/1.tif", "/data/a/2.tif"]) == ["1.tif", "2.tif"]
    assert scene_names(["/data/a/1.tif", "/data/b/1.tif"]) == ["a/1.tif", "b/1.tif"]
    assert scene_names(["/data/a/1.tif", "/data/a/1.tif"]) == ["1.tif", "1.tif"]


def test_spelling_of_labels_is_one_over_all_windows() -> None:
    window, other = Window(0, 0, 448, 448), Window(336, 0, 448, 448)
    box = (350.0, 20.0, 380.0, 60.0)
    found = [
        Detection(box, "Storage Tanks", 0.5, window),
        Detection(box, "storage-tank", 0.9, other),
        Detection((10.0, 10.0, 40.0, 40.0), "storage-tank", 0.6, window),
        Detection((60.0, 10.0, 90.0, 40.0), None, 0.6, window),
    ]
    spelled = with_one_name(found, class_names(()))
    assert [d.label for d in spelled] == ["storage-tank"] * 3 + [None]
    assert len(merged(spelled, 784, 448)) == 3


def test_names_of_one_class_are_one_over_all_windows() -> None:
    window, other = Window(0, 0, 448, 448), Window(336, 0, 448, 448)
    box = (350.0, 20.0, 380.0, 60.0)
    found = [Detection(box, "airplane", 0.5, window), Detection(box, "plane", 0.4, other)]
    found += [Detection((x, 90.0, x + 20, 99.0), name, 0.3, window) for x, name in ((10.0, "ship"), (50.0, "boat"))]
    assert [d.label for d in merged(with_one_name(found, class_names(())), 784, 448)] == ["airplane", "ship", "boat"]
    known = with_one_name([*found, replace(found[0], label="white jet")], class_names(("plane", "ship")))
    assert [d.label for d in known] == ["plane", "plane", "ship", "ship", "plane"]


def test_words_beside_boxes_are_labels() -> None:
    window = Window(0, 0, 400, 400)
    text = "<think>look</think><answer>ship [10,10,30,30], plane [60,60,80,80]</answer>"
    answer = WindowAnswer(0, window, text, 0.9, samples=(text.replace("ship", "Ships"), "[60,60,80,80]"))
    found = features_of([answer], "object_detection", 400, 400)
    assert [(f.properties["label"], f.properties["agreement"], f.polygon.bounds) for f in found] == [
        ("ship", 0.5, (40, 40, 120, 120)),
        ("plane", 1.0, (240, 240, 320, 320)),
    ]


@pytest.mark.parametrize("dialect", ["brackets", "json"])
def test_windows_are_asked_as_records_in_training(dialect: str, tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.tif", 200, 200)
    names = ("ship", "plane")
    for task, rotated, target in (
        ("object_detection", True, (Box((1, 2, 3, 4, 0), "ship"), Box((1, 2, 9, 9, 5), "plane"))),
        ("referred_object_detection", False, (Box((1, 2, 3, 4), "ship"),)),
        ("scene_classification", False, ("ship",)),
    ):
        settings = PredictSettings(task, "Which objects are shown?", 200, 0, classes=names, rotated=rotated)
        (asked,) = rendered_windows([(str(path),)], settings, AnswerFormat(None, dialect), set(), tmp_path)
        record = Example("a", task, (), settings.question, target, labels=names, dialect=dialect)
        assert asked.example is not None
        assert PromptConfig().question(asked.example) == PromptConfig().question(record)


def test_confidence_is_of_the_tokens_of_the_answer() -> None:
    tokenizer = load_processor(model_folder("tiny")).tokenizer
    ids = tokenizer("<think>red</think><answer>ship</answer>")["input_ids"]
    start, end = (ids.index(tokenizer.convert_tokens_to_ids(tag)) for tag in ("<answer>", "</answer>"))
    logprobs = [np.log(0.5) if start < k <= end else np.log(0.9) for k in range(len(ids))]
    sample = Sample(tuple(ids), tuple(logprobs), tokenizer.decode(ids), "stop", 0)
    assert mean_probability(sample, tokenizer) == pytest.approx(0.5)
    plain = Sample(tuple(ids[:2]), tuple(logprobs[:2]), "red", "stop", 0)
    assert mean_probability(plain, tokenizer) == pytest.approx(0.9)


def test_formulas_and_escapes_stay_text(scene: Path, tmp_path: Path, config: Config) -> None:
    settings = replace(SETTINGS, task="vqa")
    hostile = "=1+1\x1b[2J</script><script>x()"
    predicted(scene, tmp_path / "map.csv", config, oracle(answer=hostile), settings)
    with (tmp_path / "map.csv").open() as file:
        assert next(csv.DictReader(file))["answer"].startswith("'=1+1")
    page = (tmp_path / "map.html").read_text()
    assert "\x1b" not in page
    assert "<script>x()" not in page
    assert json.dumps(hostile)[1:-1] not in page


def test_classes_are_names_between_commas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_scene(tmp_path / "scene.tif", 60, 60)
    words = ["predict", "tiny", str(path), "--task", "object_detection", "--prompt", "Find.", "--local"]
    assert main([*words, "--out", str(tmp_path / "map.geojson"), "--classes", "ship,,plane"]) == 1
    assert "--classes: expected names separated by commas, found 'ship,,plane'" in capsys.readouterr().err
