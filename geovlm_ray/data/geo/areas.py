"""Splits by area: what two scenes show of one place falls into one split.

The globe is divided into cells of about equal size, in rows of latitude. A window belongs to the split of the cells
that it may touch; windows that may touch cells of several splits belong to none. Scenes without georeference have
cells of their own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from geovlm_ray.data.geo.scene import METRES_PER_DEGREE, Scene, Window, near

Cell = tuple[str, int, int]
"""Name of the scene (empty: the globe), row and column."""


def touched_cells(scene: Scene, name: str, windows: Sequence[Window], side: float) -> list[frozenset[Cell]]:
    """The cells that each window may touch; ``side`` is that of cells, in metres, or in pixels without georeference.

    Raises:
        DataError: the scene's coordinates have no place on the globe.
    """
    boxes = np.array([[w.left, w.top, w.right, w.bottom] for w in windows], dtype=np.float64)
    if scene.georeference is None:
        rows, columns = boxes[:, [1, 3]] / side, boxes[:, [0, 2]] / side
        return [frozenset(_grid(name, r, c)) for r, c in zip(rows, columns, strict=True)]
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
    degrees = scene.georeference.degrees(corners).reshape(-1, 4, 2)
    degrees[..., 0] = near(degrees[..., 0], degrees[:, :1, 0])
    return [frozenset(_cells_around(corners, side / METRES_PER_DEGREE)) for corners in degrees]


def split_of_cells(cells: Iterable[Cell], shares: Mapping[str, float]) -> dict[Cell, str]:
    """The split of each cell, at random but the same at every call; ``shares`` sum to 1, the first takes the rest."""
    ordered = sorted(set(cells), key=lambda cell: hashlib.blake2b(repr(cell).encode()).digest())
    first, *others = shares
    splits = dict.fromkeys(ordered, first)
    start = 0
    for name in others:
        end = start + round(shares[name] * len(ordered))
        splits |= dict.fromkeys(ordered[start:end], name)
        start = end
    return splits


def _cells_around(degrees: np.ndarray, height: float) -> Iterable[Cell]:
    """Cells that meet the box around the longitudes and latitudes [n, 2]; ``height`` of a cell is in degrees.

    The box may begin or end beyond the antimeridian.
    """
    (west, south), (east, north) = degrees.min(axis=0), degrees.max(axis=0)
    turn = 360 * math.floor((west + 180) / 360)
    spans = [(west - turn, min(east - turn, 180.0)), (-180.0, east - turn - 360)]
    for row in range(math.floor(south / height), math.ceil(north / height)):
        width = height / max(math.cos(math.radians((row + 0.5) * height)), 1e-3)
        for start, end in spans:
            for column in range(math.floor(start / width), math.ceil(end / width)):
                yield "", row, column


def _grid(name: str, rows: np.ndarray, columns: np.ndarray) -> Iterable[Cell]:
    for row in range(math.floor(rows[0]), math.ceil(rows[1])):
        for column in range(math.floor(columns[0]), math.ceil(columns[1])):
            yield name, row, column
