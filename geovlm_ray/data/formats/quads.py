"""Quadrilaterals, as DOTA and its offspring annotate objects, as rotated or horizontal boxes."""

from __future__ import annotations

from collections.abc import Sequence

from geovlm_ray.core import geometry
from geovlm_ray.core.errors import DataError


def rotated_box(corners: Sequence[float]) -> tuple[float, ...]:
    """The smallest rotated box around corners ``x, y, x, y, ...``, as `geovlm_ray.core.geometry.rotated_box`.

    Raises:
        DataError: the corners enclose no area.
    """
    box = geometry.rotated_box(corners)
    if box is None:
        raise DataError(f"corners: expected a shape with an area, found {list(corners)}")
    return box


def horizontal_box(corners: Sequence[float]) -> tuple[float, ...]:
    """``x1, y1, x2, y2`` of the envelope of corners ``x, y, x, y, ...``, in their units."""
    return min(corners[::2]), min(corners[1::2]), max(corners[::2]), max(corners[1::2])
