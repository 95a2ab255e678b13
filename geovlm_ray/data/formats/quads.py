"""Quadrilateral annotations, as in DOTA and its derivatives, to rotated or horizontal boxes."""

from __future__ import annotations

from collections.abc import Sequence

from geovlm_ray.core import geometry
from geovlm_ray.core.errors import DataError


def smallest_rotated_box(corners: Sequence[float]) -> tuple[float, ...]:
    """The smallest rotated box around corners ``x, y, x, y, ...``, as by `geovlm_ray.core.geometry.rotated_box`.

    Raises:
        DataError: the corners enclose no area.
    """
    box = geometry.rotated_box(corners)
    if box is None:
        raise DataError(f"corners: expected a polygon with positive area, found {list(corners)}")
    return box


def horizontal_box(corners: Sequence[float]) -> tuple[float, ...]:
    """``x1, y1, x2, y2`` of the axis-aligned envelope of corners ``x, y, x, y, ...``, in the same units."""
    return min(corners[::2]), min(corners[1::2]), max(corners[::2]), max(corners[1::2])
