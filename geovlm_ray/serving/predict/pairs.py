"""Two scenes of one area, the later one on the pixel grid of the earlier one."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_geom

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import intersections
from geovlm_ray.data.geo.scene import Georeference, Scene

MIN_OVERLAP = 0.5
"""Least share of the earlier scene that the later one must cover."""


def align(later: Scene, earlier: Scene) -> None:
    """Let ``later`` return the pixels of ``earlier``'s grid, warped bilinearly if the two grids differ.

    Raises:
        DataError: one of them has no georeference and they differ in size, or they overlap too little.
    """
    same_size = (later.width, later.height) == (earlier.width, earlier.height)
    here, there = earlier.georeference, later.georeference
    if here is None or there is None:
        if not same_size:
            raise DataError(
                f"{later.path}: expected {earlier.width} x {earlier.height} pixels as {earlier.path}, because the two "
                f"have no georeference in common, found {later.width} x {later.height}"
            )
        return
    if same_size and here.crs == there.crs and _is_same_grid(here, there, earlier):
        return
    outline = _outline(earlier, here, here.crs)
    (common,) = intersections(np.array([outline]), np.array([_outline(later, there, here.crs)]))
    share = common.area / outline.area
    if share < MIN_OVERLAP:
        raise DataError(
            f"{later.path}: expected a scene that covers at least {MIN_OVERLAP:.0%} of {earlier.path}, "
            f"found {share:.0%}"
        )
    later.replace(
        WarpedVRT(
            later.file,
            crs=here.crs,
            transform=here.transform,
            width=earlier.width,
            height=earlier.height,
            resampling=Resampling.bilinear,
            **_masked(later),
        )
    )


def _is_same_grid(here: Georeference, there: Georeference, scene: Scene) -> bool:
    """Whether the corners of a scene lie at the same place in both, up to a hundredth of a pixel."""
    corners = np.array([[0, 0], [scene.width, 0], [scene.width, scene.height], [0, scene.height]], dtype=np.float64)
    return bool(np.abs(here.pixels(there.coordinates(corners)) - corners).max() < 0.01)


def _masked(scene: Scene) -> dict[str, Any]:
    """Options of a warped view by which what lies outside of the scene is masked."""
    if scene.file.nodata is not None or ColorInterp.alpha in scene.file.colorinterp:
        return {}
    kind = np.dtype(scene.file.dtypes[0])
    if kind in (np.uint8, np.uint16):
        return {"add_alpha": True}
    # GDAL ignores an alpha band of other types.
    return {"nodata": float("nan") if kind.kind in "fc" else int(np.iinfo(kind).min)}


def _outline(scene: Scene, where: Georeference, crs: CRS) -> shapely.Polygon:
    """Outline of a scene in ``crs``."""
    corners = [(0, 0), (scene.width, 0), (scene.width, scene.height), (0, scene.height)]
    ring = shapely.Polygon(where.coordinates(np.array(corners)))
    finer = shapely.segmentize(ring, ring.length / 64)
    return shapely.geometry.shape(transform_geom(where.crs, crs, shapely.geometry.mapping(finer)))
