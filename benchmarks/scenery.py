"""A large drawn scene with objects at random places, as a georeferenced GeoTIFF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window

from geovlm_ray.data.scene_draw import SCENE_SIZE, DrawnScene, Thing, render

UTM = "EPSG:32633"
TURNED = Affine.translation(500_000, 4_100_000) @ Affine.rotation(20) @ Affine.scale(0.5, -0.5)
"""Half a metre a pixel, turned by 20 degrees."""
SIDES = (28, 50)
GAP, SHADOW = 12, 5
TEXTURES = 24
Box = tuple[int, int, int, int]


def place_ships(count: int, width: int, height: int, seed: int = 0) -> list[Box]:
    """Boxes of ships in pixels that do not touch; none is nearer to the edge than a shadow."""
    rng = np.random.default_rng(seed)
    occupied = np.zeros((height // 4 + 1, width // 4 + 1), dtype=bool)
    boxes: list[Box] = []
    while len(boxes) < count:
        long = int(rng.integers(*SIDES))
        sides = (long, max(16, long * 2 // 5))
        w, h = sides if rng.random() < 0.5 else sides[::-1]
        x, y = int(rng.integers(SHADOW, width - w - SHADOW)), int(rng.integers(SHADOW, height - h - SHADOW))
        around = np.s_[max(0, y - GAP) // 4 : (y + h + GAP) // 4 + 1, max(0, x - GAP) // 4 : (x + w + GAP) // 4 + 1]
        if not occupied[around].any():
            occupied[around] = True
            boxes.append((x, y, x + w, y + h))
    return boxes


def write_ships(path: Path, width: int, height: int, boxes: Sequence[Box], seed: int = 0) -> None:
    """Draw ships on water, strip by strip, so that memory does not grow with the scene."""
    rng = np.random.default_rng(seed)
    water = [np.asarray(render(DrawnScene(("water",), texture_seed=k))) for k in range(TEXTURES)]
    level = np.mean([tile.mean(axis=(0, 1)) for tile in water], axis=0)
    # One colour of water, so that tiles have no visible edges.
    water = [np.clip(tile + (level - tile.mean(axis=(0, 1))), 0, 255).astype(np.uint8) for tile in water]
    ships = [(box, _drawn(box, int(rng.integers(2**31)), level)) for box in boxes]
    profile = {"width": width, "height": height, "count": 3, "dtype": "uint8", "crs": UTM, "transform": TURNED}
    with rasterio.open(path, "w", driver="GTiff", tiled=True, compress="deflate", **profile) as file:
        for top in range(0, height, SCENE_SIZE):
            rows = min(SCENE_SIZE, height - top)
            tiles = [water[int(k)] for k in rng.integers(0, TEXTURES, -(-width // SCENE_SIZE))]
            strip = np.concatenate(tiles, axis=1)[:rows, :width].copy()
            for (x1, y1, x2, y2), picture in ships:
                low, high = max(y1 - SHADOW, top), min(y2 + SHADOW, top + rows)
                if low < high:
                    part = picture[low - (y1 - SHADOW) : high - (y1 - SHADOW)]
                    strip[low - top : high - top, x1 - SHADOW : x2 + SHADOW] = part
            file.write(strip.transpose(2, 0, 1), window=Window(0, top, width, rows))


def _drawn(box: Box, seed: int, level: np.ndarray) -> np.ndarray:
    """A ship with its shadow on water, [rows, columns, 3]."""
    w, h = box[2] - box[0], box[3] - box[1]
    rng = np.random.default_rng(seed)
    paint = ("red", "white", "yellow")[int(rng.integers(3))]
    x, y = (SCENE_SIZE - w) // 2, (SCENE_SIZE - h) // 2
    scene = DrawnScene(("water",), (Thing("ship", paint, (x, y, x + w, y + h)),), texture_seed=seed, light_seed=seed)
    tile = np.asarray(render(scene)).astype(np.float64)
    edge = np.concatenate([tile[:8].reshape(-1, 3), tile[-8:].reshape(-1, 3)]).mean(axis=0)
    tile = np.clip(tile + level - edge, 0, 255).astype(np.uint8)
    return tile[y - SHADOW : y + h + SHADOW, x - SHADOW : x + w + SHADOW]
