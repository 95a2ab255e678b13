"""Vector layers (GeoJSON, GeoPackage, FlatGeobuf, Shapefile): polygons with a class each, in pixels of a scene."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pyogrio.raw
import shapely
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import open_plain
from geovlm_ray.data.geo.scene import Georeference, Scene, near

ENDINGS = (".geojson", ".gpkg", ".fgb", ".shp")
SIGNATURES = {
    b"{": "GeoJSON",
    b"SQLite format 3\0": "GeoPackage",
    b"fgb\x03": "FlatGeobuf",
    b"\0\0\x27\x0a": "Shapefile",
}
"""Formats by the first bytes of a file. Others that GDAL reads may refer to files and addresses elsewhere."""
CLASS_COLUMNS = ("class", "label", "category", "type", "name")
"""Columns that are looked for if none is named, in any case."""
GRID = 17
"""Points along each side of a scene that tell where it lies in another coordinate system."""
MAX_BYTES = 2**31
"""Largest layer file that is read; a layer is in memory as a whole."""


NO_CLASS = "expected the name of a class"


@dataclass(frozen=True)
class Layer:
    """The polygons [n] of a vector layer, their classes, and the numbers and problems of features that are neither.

    ``crs`` is None if the file states none; ``scores`` [n] are those of a column ``score``, else 1.
    """

    path: Path
    crs: CRS | None
    shapes: np.ndarray
    labels: tuple[str, ...]
    scores: np.ndarray
    problems: Mapping[int, str] = field(default_factory=dict)

    def in_pixels(self, scene: Scene) -> np.ndarray:
        """The polygons [n] in pixels (column, row) of a scene; those of a scene without georeference are pixels.

        Of a layer in another coordinate system, what is further from the scene than its own size is cut off, because it
        may have no place in that of the scene; polygons are empty if nothing is left.

        Raises:
            DataError: the layer states no coordinate system, or its coordinates have no place in that of the scene.
        """
        where = scene.georeference
        if where is None or not len(self.shapes):
            return self.shapes
        if self.crs is None:
            raise DataError(f"{self.path}: expected a layer with a coordinate system, found none")
        crs = self.crs
        if crs == where.crs:
            return np.asarray(shapely.transform(self.shapes, where.pixels))

        def place(points: np.ndarray) -> np.ndarray:
            return where.pixels(np.column_stack(transform(crs, where.crs, *points.T)))

        try:
            shapes = _cut(self.shapes, _surroundings(scene, where, crs))
            placed = np.asarray(shapely.transform(shapes, place))
        except (RasterioError, CPLE_BaseError, ValueError) as error:
            raise DataError(f"{self.path}: expected coordinates in {crs}, found: {error}") from error
        placed[~np.isfinite(shapely.bounds(placed)).all(axis=1)] = shapely.Polygon()
        return placed


def _surroundings(scene: Scene, where: Georeference, crs: CRS) -> shapely.Geometry:
    """The area in ``crs`` around a scene, beyond it by its own size on every side."""
    columns, rows = np.meshgrid(np.linspace(0, scene.width, GRID), np.linspace(0, scene.height, GRID))
    points = where.coordinates(np.column_stack([columns.ravel(), rows.ravel()]))
    x, y = map(np.array, transform(where.crs, crs, *points.T))
    turns = (-360, 0, 360) if crs.is_geographic else (0,)
    if crs.is_geographic:
        x = near(x, x[0])
    across, down = np.ptp(x), np.ptp(y)
    return shapely.union_all(
        [
            shapely.box(x.min() - across + turn, y.min() - down, x.max() + across + turn, y.max() + down)
            for turn in turns
        ]
    )


def _cut(shapes: np.ndarray, area: shapely.Geometry) -> np.ndarray:
    """The parts of polygons [n] within an area; those that lie within it are unchanged, others may be empty."""
    shapely.prepare(area)
    found = np.full(len(shapes), shapely.Polygon(), dtype=object)
    inside = shapely.covers(area, shapes)
    found[inside] = shapes[inside]
    across = np.flatnonzero(~inside & shapely.intersects(area, shapes))
    for i in across:
        found[i] = _polygon(shapely.intersection(shapes[i], area)) or shapely.Polygon()
    return found


def read_layer(path: Path, class_column: str = "", label: str = "", layer: str = "", default: str = "") -> Layer:
    """Read the polygons of a layer file.

    The class is in ``class_column``, by default the first of `CLASS_COLUMNS`, or ``label`` for all, or ``default`` for
    features without one. ``layer`` names the layer of a file with several.

    Raises:
        DataError: the file, the layer or the column does not exist, or the file cannot be read.
    """
    _check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            names = [str(name) for name in pyogrio.list_layers(path)[:, 0]]
            if layer not in names and (layer or len(names) != 1):
                raise DataError(
                    f"{path}: expected layer {layer or 'by option layer=NAME'}, found {', '.join(names) or 'none'}"
                )
            meta, _, geometries, columns = pyogrio.raw.read(path, layer=layer or names[0], force_2d=True)
            crs = CRS.from_user_input(meta["crs"]) if meta["crs"] else None
    except (RuntimeError, ValueError, CRSError, OSError) as error:
        raise DataError(f"{path}: expected a vector layer that GDAL reads, found: {error}") from error
    if geometries is None:
        raise DataError(f"{path}: expected polygons, found a table without geometries")
    fields = dict(zip((str(name) for name in meta["fields"]), columns, strict=True))
    has_classes = any(name.lower() in CLASS_COLUMNS for name in fields)
    if label or not len(geometries) or (default and not has_classes and not class_column):
        values = [label or default] * len(geometries)
    else:
        column = fields[_class_column(path, fields, class_column)]
        values = [default if default and _is_null(value) else value for value in column]
    scores = _scores(fields.get("score"), len(geometries))
    return _layer(path, crs, shapely.from_wkb(geometries, on_invalid="ignore"), values, scores)


def _check_file(path: Path) -> None:
    try:
        with open_plain(path) as file:
            start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: expected a vector layer, found: {error.strerror}") from error
    if not start.startswith(tuple(SIGNATURES)):
        raise DataError(f"{path}: expected a vector layer ({', '.join(SIGNATURES.values())}), found {start[:16]!r}")
    if size > MAX_BYTES:
        raise DataError(f"{path}: expected a layer of at most {MAX_BYTES / 2**30:g} GiB, found {size / 2**30:.1f}")


def _class_column(path: Path, fields: Mapping[str, Any], wanted: str) -> str:
    names = {name.lower(): name for name in fields}
    found = next((names[name] for name in ([wanted.lower()] if wanted else CLASS_COLUMNS) if name in names), None)
    if found is None:
        raise DataError(
            f"{path}: expected a column {wanted or ' or '.join(CLASS_COLUMNS)} with classes, found "
            f"{', '.join(fields) or 'none'}; name it with class=COLUMN, or the class of all features with label=NAME"
        )
    return found


def _scores(column: np.ndarray | None, count: int) -> np.ndarray:
    """Scores [count] of the features; 1 without a column of numbers, 0 for a feature without score."""
    if column is None or not np.issubdtype(column.dtype, np.number):
        return np.ones(count)
    return np.nan_to_num(column.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _layer(path: Path, crs: CRS | None, shapes: np.ndarray, values: list[Any], scores: np.ndarray) -> Layer:
    """The features that are polygons with a class; others are problems by their number, from 1."""
    kept, labels, chosen, problems = [], [], [], {}
    for number, (shape, value) in enumerate(zip(shapes, values, strict=True), 1):
        polygon = _polygon(shape)
        name = "" if _is_null(value) else " ".join(str(value).split())
        if polygon is None:
            found = "none" if shape is None else shape.geom_type
            problems[number] = f"expected a polygon with an area, found {found}"
        elif not name:
            problems[number] = f"{NO_CLASS}, found {value!r}"
        else:
            kept.append(polygon)
            labels.append(name)
            chosen.append(number - 1)
    return Layer(path, crs, np.array(kept, dtype=object), tuple(labels), scores[chosen], problems)


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _polygon(shape: shapely.Geometry | None) -> shapely.Geometry | None:
    """The polygon or multipolygon of a geometry, valid and finite; None if it is not one."""
    if shape is None or shape.is_empty or not np.isfinite(shapely.get_coordinates(shape)).all():
        return None
    if shapely.get_dimensions(shape) != 2:
        return None
    valid = shape if shape.is_valid else shapely.make_valid(shape)
    parts = [part for part in shapely.get_parts(valid) if part.geom_type == "Polygon" and part.area > 0]
    return None if not parts else parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
