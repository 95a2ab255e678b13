"""Resizing of model inputs: to a fixed square, to native resolution within a pixel budget, or to tiles.

Boxes always refer to the full image. Each model input is described by a frame of kind ``pixel`` with its size and its
window of the full image, so that `Frame.convert` maps boxes between the image and its model inputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.pixels import PixelSettings
from geovlm_ray.data.images import image_size, load_image

MAX_ASPECT_RATIO = 200
"""Maximum aspect ratio; the limit of Qwen2-VL's image processor."""


@dataclass(frozen=True)
class Resolution:
    """Resizing settings, in pixels.

    ``side`` is the side of a square input, and ``factor`` divides all sides. In native mode the area of an input is
    between ``min_pixels`` and ``max_pixels``, where ``max_pixels`` is at least 4 times ``min_pixels``.
    """

    mode: Literal["fixed", "native", "tiles"]
    side: int
    factor: int
    min_pixels: int
    max_pixels: int
    max_tiles: int

    def frames(self, width: int, height: int) -> tuple[Frame, ...]:
        """Frames of the model inputs of an image; with tiles, first the full image, then the tiles in row-major order.

        Raises:
            DataError: In native mode, the aspect ratio exceeds `MAX_ASPECT_RATIO`.
        """
        if self.mode == "native":
            return (Frame("pixel", *self.native_size(width, height)),)
        full = Frame("pixel", self.side, self.side)
        columns, rows = self.grid(width, height) if self.mode == "tiles" else (1, 1)
        if columns * rows == 1:
            return (full,)
        tiles = [
            Frame("pixel", self.side, self.side, (c / columns, r / rows, (c + 1) / columns, (r + 1) / rows))
            for r in range(rows)
            for c in range(columns)
        ]
        return (full, *tiles)

    def native_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height closest to the image's own that are multiples of the factor, with an area within the bounds.

        Same rule as smart_resize in transformers (models/qwen2_vl/image_processing_qwen2_vl.py), except that the long
        side is clipped where the result would exceed a bound and be resized again.

        Raises:
            DataError: The aspect ratio exceeds `MAX_ASPECT_RATIO`.
        """
        if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
            raise DataError(f"expected an aspect ratio of at most {MAX_ASPECT_RATIO}, found {width} x {height} pixels")
        sides = [round(n / self.factor) for n in (width, height)]
        unit = self.factor**2
        area = width * height
        if sides[0] * sides[1] * unit > self.max_pixels:
            scale = math.sqrt(area / self.max_pixels)
            sides = [max(1, math.floor(n / scale / self.factor)) for n in (width, height)]
        elif sides[0] * sides[1] * unit < self.min_pixels:
            scale = math.sqrt(self.min_pixels / area)
            sides = [math.ceil(n * scale / self.factor) for n in (width, height)]
        long, short = (0, 1) if width >= height else (1, 0)
        sides[long] = min(sides[long], self.max_pixels // unit // sides[short], MAX_ASPECT_RATIO * sides[short])
        return sides[0] * self.factor, sides[1] * self.factor

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows of tiles: the grid with the squarest tiles, then with the most tiles.

        The number of tiles is at most `max_tiles` and the number that covers the image at its own resolution.
        """
        needed = max(1, round(width / self.side)) * max(1, round(height / self.side))
        limit = min(self.max_tiles, needed)
        grids = [(c, r) for c in range(1, limit + 1) for r in range(1, limit // c + 1)]
        return min(grids, key=lambda g: (round(abs(math.log(width * g[1] / (height * g[0]))), 6), -g[0] * g[1]))


def show(reference: str, pixels: PixelSettings, resolution: Resolution) -> np.ndarray:
    """Load and resize an image into the model inputs, uint8 [inputs, rows, columns, 3].

    Raises:
        DataError: The image cannot be read or its aspect ratio is not supported.
    """
    frames = frames_of(reference, resolution)
    needed = max(
        side / (frame.window[i + 2] - frame.window[i]) for frame in frames for i, side in enumerate(frame.scale)
    )
    image = load_image(reference, pixels, at_least=math.ceil(needed))
    return np.stack([np.asarray(_resized(image, frame)) for frame in frames])


def frames_of(reference: str, resolution: Resolution) -> tuple[Frame, ...]:
    """Frames of the model inputs that `show` returns, from the image header only.

    Raises:
        DataError: The header cannot be read or its aspect ratio is not supported.
    """
    if resolution.mode == "fixed":
        return resolution.frames(resolution.side, resolution.side)
    size = image_size(reference)
    try:
        return resolution.frames(*size)
    except DataError as error:
        raise DataError(f"image {reference}: {error}") from error


def _resized(image: Image.Image, frame: Frame) -> Image.Image:
    left, top, right, bottom = frame.window
    box = (left * image.width, top * image.height, right * image.width, bottom * image.height)
    return image.resize((int(frame.width), int(frame.height)), Image.Resampling.BICUBIC, box)
