"""Windows that cover a scene with overlap."""

from __future__ import annotations

import math
from collections.abc import Iterator

from geovlm_ray.data.geo.scene import Window


def covering_windows(width: int, height: int, side: int, overlap: int) -> Iterator[Window]:
    """Windows of ``side`` pixels, row by row, of which neighbours share at least ``overlap`` pixels.

    A scene that is smaller than a window has windows of its own size along that axis. The windows are spread evenly:
    the last one ends at the edge of the scene.

    Raises:
        ValueError: the overlap is not below the side.
    """
    if not 0 <= overlap < side:
        raise ValueError(f"expected an overlap from 0 to below {side} pixels, found {overlap}")
    for top in _starts(height, side, overlap):
        for left in _starts(width, side, overlap):
            yield Window(left, top, min(side, width), min(side, height))


def number_of_windows(width: int, height: int, side: int, overlap: int) -> int:
    """How many windows `covering_windows` returns."""
    return len(_starts(width, side, overlap)) * len(_starts(height, side, overlap))


def _starts(length: int, side: int, overlap: int) -> list[int]:
    if length <= side:
        return [0]
    count = math.ceil((length - overlap) / (side - overlap))
    return [round(k * (length - side) / (count - 1)) for k in range(count)]
