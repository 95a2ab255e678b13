"""Quadrilaterals, as DOTA and its offspring annotate objects, as rotated or horizontal boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import shapely

from geovlm_ray.errors import DataError


def rotated_box(corners: Sequence[float]) -> tuple[float, ...]:
    """``x1, y1, x2, y2, angle`` of the smallest rectangle around corners ``x, y, x, y, ...``, in their units.

    The angle, from -45 to 45 degrees, turns as `geovlm_ray.geometry.rotated_corners` does with sense 1.

    Raises:
        DataError: the corners enclose no area.
    """
    points = list(zip(corners[::2], corners[1::2], strict=True))
    rectangle = shapely.oriented_envelope(shapely.MultiPoint(points))
    if not isinstance(rectangle, shapely.Polygon) or rectangle.area == 0:
        raise DataError(f"corners: expected a shape with an area, found {list(corners)}")
    (ax, ay), (bx, by), (cx, cy) = list(rectangle.exterior.coords)[:3]
    width, height = math.hypot(bx - ax, by - ay), math.hypot(cx - bx, cy - by)
    angle = (math.degrees(math.atan2(by - ay, bx - ax)) + 180) % 180
    if 45 < angle < 135:
        width, height = height, width
    middle_x, middle_y = (ax + cx) / 2, (ay + cy) / 2
    return (
        middle_x - width / 2,
        middle_y - height / 2,
        middle_x + width / 2,
        middle_y + height / 2,
        angle - 180 if angle >= 135 else angle - 90 if angle > 45 else angle,
    )


def horizontal_box(corners: Sequence[float]) -> tuple[float, ...]:
    """``x1, y1, x2, y2`` of the envelope of corners ``x, y, x, y, ...``, in their units."""
    return min(corners[::2]), min(corners[1::2]), max(corners[::2]), max(corners[1::2])
