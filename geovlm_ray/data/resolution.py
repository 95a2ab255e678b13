"""At which size the model is shown an image: a fixed square, its own size within a budget of pixels, or tiles.

Boxes always refer to the whole image, whatever is shown of it. The pictures of an image are described as frames: of
kind ``pixel``, with the picture's size and the window of the image that it shows, so that `Frame.convert` finds a
box of the image in its pictures and the other way round.
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

LARGEST_RATIO = 200
"""Of the sides of a picture; Qwen2-VL's image processor takes none beyond."""


@dataclass(frozen=True)
class Resolution:
    """How images are sized.

    ``side`` is that of a square picture, ``factor`` divides all sides, and ``min_pixels`` to ``max_pixels`` (of which
    the latter is at least 4 times the former) are the area of a picture in native size; all in pixels.
    """

    mode: Literal["fixed", "native", "tiles"]
    side: int
    factor: int
    min_pixels: int
    max_pixels: int
    max_tiles: int

    def pictures(self, width: int, height: int) -> tuple[Frame, ...]:
        """The pictures that an image of this size is shown as: of tiles first the whole, then row by row.

        Raises:
            DataError: one side is more than 200 times the other and shall stay so.
        """
        if self.mode == "native":
            return (Frame("pixel", *self.native_size(width, height)),)
        whole = Frame("pixel", self.side, self.side)
        columns, rows = self.grid(width, height) if self.mode == "tiles" else (1, 1)
        if columns * rows == 1:
            return (whole,)
        tiles = [
            Frame("pixel", self.side, self.side, (c / columns, r / rows, (c + 1) / columns, (r + 1) / rows))
            for r in range(rows)
            for c in range(columns)
        ]
        return (whole, *tiles)

    def native_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height nearest an image's own: multiples of the factor, with an area within the bounds.

        The rule is that of smart_resize in transformers (models/qwen2_vl/image_processing_qwen2_vl.py); images so thin
        that its result would exceed a bound, and be resized once more, are shortened instead.

        Raises:
            DataError: one side is more than 200 times the other.
        """
        if max(width, height) > LARGEST_RATIO * min(width, height):
            raise DataError(f"{width} x {height} pixels, expected sides of a ratio up to {LARGEST_RATIO}")
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
        sides[long] = min(sides[long], self.max_pixels // unit // sides[short], LARGEST_RATIO * sides[short])
        return sides[0] * self.factor, sides[1] * self.factor

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows of tiles: the squarest there are, of those the most, as long as tiles are about as large as
        the part of the image that they show, or smaller.
        """
        enough = max(1, round(width / self.side)) * max(1, round(height / self.side))
        most = min(self.max_tiles, enough)
        grids = [(c, r) for c in range(1, most + 1) for r in range(1, most // c + 1)]
        return min(grids, key=lambda g: (round(abs(math.log(width * g[1] / (height * g[0]))), 6), -g[0] * g[1]))


def show(reference: str, pixels: PixelSettings, resolution: Resolution) -> np.ndarray:
    """The pictures of an image as the model sees them, uint8 [pictures, rows, columns, 3].

    Raises:
        DataError: the image cannot be read, or not be shown at this resolution.
    """
    frames = frames_of(reference, resolution)
    needed = max(
        side / (frame.window[i + 2] - frame.window[i]) for frame in frames for i, side in enumerate(frame.scale)
    )
    image = load_image(reference, pixels, at_least=math.ceil(needed))
    return np.stack([np.asarray(_resized(image, frame)) for frame in frames])


def frames_of(reference: str, resolution: Resolution) -> tuple[Frame, ...]:
    """The frames of the pictures that `show` makes of an image, from its header alone.

    Raises:
        DataError: as `show`, where the header tells.
    """
    if resolution.mode == "fixed":
        return resolution.pictures(resolution.side, resolution.side)
    size = image_size(reference)
    try:
        return resolution.pictures(*size)
    except DataError as error:
        raise DataError(f"image {reference}: {error}") from error


def _resized(image: Image.Image, frame: Frame) -> Image.Image:
    left, top, right, bottom = frame.window
    box = (left * image.width, top * image.height, right * image.width, bottom * image.height)
    return image.resize((int(frame.width), int(frame.height)), Image.Resampling.BICUBIC, box)
