"""Two scenes of one area, the later one on the pixel grid of the earlier one."""

from __future__ import annotations

import numpy as np
import shapely
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_geom

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.geo.scene import Scene, on_the_ground

MIN_OVERLAP = 0.5
"""Least share of the earlier scene that the later one must cover."""


def align(later: Scene, earlier: Scene) -> None:
    """Let ``later`` return the pixels of ``earlier``'s grid, warped bilinearly if the two grids differ.

    Raises:
        DataError: one of them has no georeference and they differ in size, or they overlap too little.
    """
    same_size = (later.width, later.height) == (earlier.width, earlier.height)
    if later.crs is None or earlier.crs is None:
        if not same_size:
            raise DataError(
                f"{later.path}: expected {earlier.width} x {earlier.height} pixels as {earlier.path}, because the two "
                f"have no georeference in common, found {later.width} x {later.height}"
            )
        return
    if same_size and later.crs == earlier.crs and later.transform.almost_equals(earlier.transform):
        return
    share = overlap(later, earlier)
    if share < MIN_OVERLAP:
        raise DataError(
            f"{later.path}: expected a scene that covers at least {MIN_OVERLAP:.0%} of {earlier.path}, "
            f"found {share:.0%}"
        )
    later.replace(
        WarpedVRT(
            later.file,
            crs=earlier.crs,
            transform=earlier.transform,
            width=earlier.width,
            height=earlier.height,
            resampling=Resampling.bilinear,
            add_alpha=later.file.nodata is None,
        )
    )


def overlap(later: Scene, earlier: Scene) -> float:
    """Share of the earlier scene's area that the later one covers."""
    outlines = []
    for scene in (earlier, later):
        corners = [(0, 0), (scene.width, 0), (scene.width, scene.height), (0, scene.height)]
        ring = shapely.Polygon(on_the_ground(scene.transform, np.array(corners)))
        finer = shapely.segmentize(ring, ring.length / 64)
        placed = transform_geom(scene.crs, earlier.crs, shapely.geometry.mapping(finer))
        outlines.append(shapely.geometry.shape(placed))
    first, second = outlines
    return float(np.clip(first.intersection(second).area / first.area, 0, 1))
