"""Features of scenes, and their files: GeoJSON, GeoPackage, FlatGeobuf, COCO JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import shapely
from rasterio.crs import CRS
from rasterio.warp import transform

from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.core.files import write_atomically, writing
from geovlm_ray.data.geo.scene import WGS84, Georeference, Scene

DEGREE_DIGITS = 9
"""Decimal places of degrees in GeoJSON: 0.1 millimetres."""


@dataclass(frozen=True)
class Feature:
    """A polygon in pixels of a scene (column, row), with the values of its columns."""

    polygon: shapely.Polygon
    properties: Mapping[str, Any]


@dataclass(frozen=True)
class SceneFeatures:
    """The features of one scene, and its size and georeference, or whether it has control points instead."""

    name: str
    width: int
    height: int
    georeference: Georeference | None
    features: Sequence[Feature] = field(default_factory=list)
    has_control_points: bool = False

    @classmethod
    def of(cls, scene: Scene, features: Sequence[Feature]) -> SceneFeatures:
        """Features of an open scene."""
        where, only_points = scene.georeference, scene.has_control_points
        return cls(scene.path.name, scene.width, scene.height, where, features, only_points)

    def placed(self, crs: CRS | None) -> list[shapely.Polygon]:
        """The polygons in ``crs``; in pixels for None.

        Raises:
            ValueError: the scene has no georeference.
        """
        shapes = [feature.polygon for feature in self.features]
        if crs is None:
            return shapes
        where = self.georeference
        if where is None:
            raise ValueError(f"{self.name} has no georeference")

        def place(points: np.ndarray) -> np.ndarray:
            placed = where.coordinates(points)
            return placed if where.crs == crs else np.column_stack(transform(where.crs, crs, *placed.T))

        return list(shapely.transform(np.array(shapes, dtype=object), place)) if shapes else []


def write_features(scenes: Sequence[SceneFeatures], file: Path) -> None:
    """Write the features of all scenes, in the format of the file's ending; a file that exists is replaced.

    Raises:
        ConfigError: the ending is unknown, or some scenes have a georeference and others none.
        DataError: the file cannot be written.
    """
    writer = _writer(file)
    if len({scene.georeference is None for scene in scenes}) > 1:
        without = next(scene.name for scene in scenes if scene.georeference is None)
        raise ConfigError(f"{file}: expected scenes with a georeference, or all without, found none in {without}")
    writer(scenes, file)


def check_format(file: Path) -> None:
    """Raise ConfigError if no format has the file's ending."""
    _writer(file)


def _writer(file: Path) -> Callable[[Sequence[SceneFeatures], Path], None]:
    if file.suffix.lower() not in WRITERS:
        raise ConfigError(f"--out: expected a file that ends in {', '.join(WRITERS)}, found {file}")
    return WRITERS[file.suffix.lower()]


def common_crs(scenes: Sequence[SceneFeatures]) -> CRS | None:
    """The CRS of all scenes; WGS 84 if they differ; None without a georeference."""
    found = [scene.georeference.crs for scene in scenes if scene.georeference]
    if len(found) < len(scenes):
        return None
    return found[0] if all(crs == found[0] for crs in found) else WGS84


def _write_geojson(scenes: Sequence[SceneFeatures], file: Path) -> None:
    """RFC 7946: WGS 84, exterior rings counterclockwise; without a georeference in pixels, rows downwards."""
    crs = common_crs(scenes)
    options = {"RFC7946": "YES", "COORDINATE_PRECISION": str(DEGREE_DIGITS)} if crs else {}
    _write_with_gdal(scenes, file, "GeoJSON", crs, **options)


def _write_geopackage(scenes: Sequence[SceneFeatures], file: Path) -> None:
    _write_with_gdal(scenes, file, "GPKG", common_crs(scenes))


def _write_flatgeobuf(scenes: Sequence[SceneFeatures], file: Path) -> None:
    _write_with_gdal(scenes, file, "FlatGeobuf", common_crs(scenes))


def _write_with_gdal(scenes: Sequence[SceneFeatures], file: Path, driver: str, crs: CRS | None, **options: str) -> None:
    """Write a temporary file with GDAL, then replace ``file``."""
    shapes = [shape for scene in scenes for shape in scene.placed(crs)]
    columns = _columns(scenes)
    partial = file.with_name(f".{file.stem}.partial{file.suffix}")
    with writing(file), warnings.catch_warnings():
        # A map in pixels has no CRS.
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        partial.unlink(missing_ok=True)
        try:
            pyogrio.raw.write(
                partial,
                geometry=shapely.to_wkb(np.array(shapes, dtype=object)) if shapes else np.empty(0, dtype=object),
                field_data=list(columns.values()),
                fields=list(columns),
                geometry_type="Polygon",
                crs=crs.to_wkt() if crs else None,
                driver=driver,
                layer=file.stem,
                **options,
            )
            os.replace(partial, file)
        except pyogrio.errors.DataSourceError as error:
            raise DataError(f"{file} cannot be written: {error}") from error
        finally:
            partial.unlink(missing_ok=True)


def _columns(scenes: Sequence[SceneFeatures]) -> dict[str, np.ndarray]:
    """Columns of all features; a value that a feature lacks is None or NaN."""
    rows = [{"scene": scene.name, **feature.properties} for scene in scenes for feature in scene.features]
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        is_number = all(isinstance(value, int | float) or value is None for value in values)
        if is_number and any(value is not None for value in values):
            columns[name] = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        else:
            columns[name] = np.array([None if value is None else str(value) for value in values], dtype=object)
    return columns


def _write_coco(scenes: Sequence[SceneFeatures], file: Path) -> None:
    """COCO's object detection format, in pixels; ``score`` as in its results."""
    labels = list(dict.fromkeys(str(f.properties.get("label") or "object") for s in scenes for f in s.features))
    annotations: list[dict[str, Any]] = []
    for image, scene in enumerate(scenes, 1):
        for feature in scene.features:
            left, top, right, bottom = feature.polygon.bounds
            ring = shapely.get_coordinates(feature.polygon.exterior)[:-1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": labels.index(str(feature.properties.get("label") or "object")) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "segmentation": [ring.ravel().tolist()],
                    "area": feature.polygon.area,
                    "iscrowd": 0,
                    **{key: value for key, value in feature.properties.items() if key != "label"},
                }
            )
    images = [{"id": i, "file_name": s.name, "width": s.width, "height": s.height} for i, s in enumerate(scenes, 1)]
    categories = [{"id": i, "name": label} for i, label in enumerate(labels, 1)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    write_atomically(file, json.dumps(coco, ensure_ascii=False, indent=1) + "\n")


def _write_csv(scenes: Sequence[SceneFeatures], file: Path) -> None:
    """One row for each feature: its columns, centre and corners in pixels, and in WGS 84 with a georeference."""
    columns = {name: values.tolist() for name, values in _columns(scenes).items()}
    shapes = [feature.polygon for scene in scenes for feature in scene.features]
    columns |= _corners(shapes, ("column", "row"), "pixels")
    if common_crs(scenes):
        placed = [_across_180(shape) for scene in scenes for shape in scene.placed(WGS84)]
        columns |= _corners(placed, ("longitude", "latitude"), "wgs84")
        columns["longitude"] = [(value + 180) % 360 - 180 for value in columns["longitude"]]
    sink = io.StringIO()
    rows = csv.writer(sink, lineterminator="\n")
    rows.writerow(columns)
    rows.writerows([map(_cell, row) for row in zip(*columns.values(), strict=True)])
    write_atomically(file, sink.getvalue())


def _across_180(shape: shapely.Polygon) -> shapely.Polygon:
    """A polygon in degrees: in one piece, with longitudes beyond 180 if it crosses the antimeridian."""
    west, _, east, _ = shape.bounds
    if east - west <= 180:
        return shape
    return shapely.transform(shape, lambda points: np.column_stack([points[:, 0] % 360, points[:, 1]]))


def _cell(value: Any) -> Any:
    """A value as a spreadsheet shows it: nothing for NaN, and texts that no spreadsheet takes for a formula."""
    if isinstance(value, str):
        return f"'{value}" if value[:1] in ("=", "+", "-", "@") else value
    return "" if value is None or math.isnan(value) else value


def _corners(shapes: Sequence[shapely.Polygon], axes: tuple[str, str], what: str) -> dict[str, list[Any]]:
    centres = [shape.centroid for shape in shapes]
    return {
        axes[0]: [point.x for point in centres],
        axes[1]: [point.y for point in centres],
        f"polygon_{what}": [shapely.to_wkt(shape, rounding_precision=DEGREE_DIGITS) for shape in shapes],
    }


WRITERS: dict[str, Callable[[Sequence[SceneFeatures], Path], None]] = {
    ".geojson": _write_geojson,
    ".gpkg": _write_geopackage,
    ".fgb": _write_flatgeobuf,
    ".json": _write_coco,
    ".csv": _write_csv,
}
"""Writers by the ending of their files."""
