"""Evaluation on the map: what a model or a file has found in a scene, against a reference layer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geovlm_ray.config import Config
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import write_atomically
from geovlm_ray.core.interfaces import RolloutPool
from geovlm_ray.data.geo.layers import NO_CLASS, read_layer
from geovlm_ray.data.geo.scene import Scene
from geovlm_ray.evaluation.metrics.maps import THRESHOLD, MapObjects, map_metrics
from geovlm_ray.report.page import render
from geovlm_ray.serving.predict.features import Feature, SceneFeatures
from geovlm_ray.serving.predict.outputs import save_picture
from geovlm_ray.serving.predict.quick_look import card, drawn, preview
from geovlm_ray.serving.predict.run import predict
from geovlm_ray.serving.predict.settings import PredictSettings

RESULTS, PICTURE, PAGE = "results.json", "map.png", "map.html"


def find_objects(
    scene: str,
    classes: Sequence[str],
    settings: PredictSettings,
    config: Config,
    build: Callable[[Config], RolloutPool],
    out: Path,
    on_progress: Callable[[str, int, int], None],
) -> MapObjects:
    """Predict over a scene once for each class, whose name replaces ``{label}`` in the question and is its ``classes``.

    Polygons are in pixels of the scene. The maps are written into the folder ``out``. ``on_progress`` receives the
    class, the windows done and their number.

    Raises:
        UserError: as `geovlm_ray.serving.predict.run.predict`.
    """
    shapes, labels, scores = [], [], []
    for label in classes:
        question = settings.question.replace("{label}", label.replace("_", " "))
        file = out / f"{''.join(c if c.isalnum() else '-' for c in label)}.geojson"
        (features,), _ = predict(
            [(scene,)],
            replace(settings, question=question, classes=(label,)),
            config,
            build,
            file,
            lambda done, total, label=label: on_progress(label, done, total),  # type: ignore[misc]
        )
        shapes += [feature.polygon for feature in features.features]
        labels += [label] * len(features.features)
        scores += [feature.properties["score"] for feature in features.features]
    return MapObjects(np.array(shapes, dtype=object), tuple(labels), np.array(scores, dtype=np.float64))


def read_map(file: Path, scene: str, classes: Sequence[str]) -> MapObjects:
    """Read what was found from a vector file.

    Classes are spelled as in ``classes``, those of the truth, from which case, hyphens and underscores may differ. If
    there is only one, an object without a class is of it.

    Raises:
        DataError: the file cannot be read, or an object has no class and could be of several.
    """
    layer = read_layer(file, default=classes[0] if len(classes) == 1 else "")
    unnamed = next((f"{n}: {text}" for n, text in layer.problems.items() if text.startswith(NO_CLASS)), None)
    if unnamed:
        raise DataError(f"{file}, feature {unnamed}; the truth has {len(classes)} classes")
    spelled = {_plain(name): name for name in classes}
    labels = tuple(spelled.get(_plain(name), name) for name in layer.labels)
    with Scene(scene) as opened:
        return MapObjects(layer.in_pixels(opened), labels, layer.scores)


def _plain(name: str) -> str:
    return re.sub("[-_ ]+", " ", name).casefold()


def read_truth(file: Path, scene: str, class_column: str = "", label: str = "") -> MapObjects:
    """The reference objects of a layer that lie in a scene, in its pixels.

    Raises:
        DataError: the layer cannot be read, or has no object in the scene.
    """
    layer = read_layer(file, class_column, label)
    with Scene(scene) as opened:
        shapes = layer.in_pixels(opened)
        inside = _inside(shapes, opened)
    if not len(inside):
        raise DataError(f"{file}: expected polygons in {scene}, found none of {len(shapes)} features there")
    return MapObjects(shapes, layer.labels, layer.scores).select(inside)


def evaluate_map(found: MapObjects, truth: MapObjects, scene: str, out: Path) -> dict[str, Any]:
    """Compute the metrics of `geovlm_ray.evaluation.metrics.maps`; write ``results.json`` and pictures into ``out``.

    Returns the metrics. Objects outside the scene do not count. Without a georeference, metres are pixels.

    Raises:
        DataError: a file cannot be written.
    """
    with Scene(scene) as opened:
        features = SceneFeatures.of(opened, [])
        unit = "m" if opened.georeference else "pixels"
        corners = np.array([(0, 0), (opened.width, 0), (opened.width, opened.height), (0, opened.height)], dtype=float)

        objects = found.select(_inside(found.shapes, opened))
        metrics = map_metrics(
            _in_metres(objects, opened), _in_metres(truth, opened), shapely.Polygon(opened.metres(corners)).bounds
        )
    write_atomically(out / RESULTS, json.dumps({"scene": scene, "unit": unit, **metrics}, indent=2) + "\n")
    _write_pictures(objects, truth, features, scene, metrics, out)
    return metrics


def class_rows(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of classes."""
    rows = {**metrics["classes"], **({"all": metrics["all"]} if len(metrics["classes"]) > 1 else {})}
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    return ["class", *names], [[label, *(_number(row.get(name)) for name in names)] for label, row in rows.items()]


def size_rows(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of sizes."""
    names = ["true", "found", "precision", "recall"]
    rows = [[size, *(_number(row.get(name)) for name in names)] for size, row in metrics["sizes"].items()]
    return ["side of the object", *names], rows


def area_rows(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the counts by area, found of true, with the north-west first."""
    areas = metrics["areas"]
    cells = [
        [f"{f:,} of {t:,}" for f, t in zip(found, true, strict=True)]
        for found, true in zip(areas["found"], areas["true"], strict=True)
    ]
    return ["", *("" for _ in cells[0])], [[("north", "", "", "south")[k], *row] for k, row in enumerate(cells)]


def _inside(shapes: np.ndarray, scene: Scene) -> np.ndarray:
    """Indices of the polygons whose centres are in a scene, in whose pixels they are."""
    outline = shapely.box(0, 0, scene.width, scene.height)
    is_inside = shapely.contains(outline, shapely.centroid(shapes)) if len(shapes) else []
    return np.flatnonzero(is_inside)


def _in_metres(objects: MapObjects, scene: Scene) -> MapObjects:
    if not len(objects.shapes):
        return objects
    return replace(objects, shapes=shapely.transform(objects.shapes, scene.metres))


def _number(value: float | None) -> str:
    if value is None:
        return "—"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _write_pictures(
    found: MapObjects, truth: MapObjects, scene: SceneFeatures, path: str, metrics: Mapping[str, Any], out: Path
) -> None:
    """The scene with reference objects in blue and found ones in orange, as a PNG and as a page with the tables."""
    right = zip(truth.shapes, ({"label": label, "is_true": True} for label in truth.labels), strict=True)
    scored = zip(found.labels, found.scores.tolist(), strict=True)
    mine = zip(found.shapes, ({"label": label, "score": score} for label, score in scored), strict=True)
    features = [Feature(part, columns) for shape, columns in (*right, *mine) for part in shapely.get_parts(shape)]
    picture, shown = preview(path, (), replace(scene, features=features))
    save_picture(drawn(picture, shown.features), out / PICTURE)
    tables = [
        ("By class", *class_rows(metrics)),
        ("By size", *size_rows(metrics)),
        ("Objects found, of those in the reference, by area", *area_rows(metrics)),
    ]
    note = f"Reference objects are blue, those that were found orange. They match from an IoU of {THRESHOLD:g}."
    write_atomically(
        out / PAGE, render("map.html", title=scene.name, note=note, scenes=[card(picture, shown)], tables=tables)
    )
