"""Box geometry: coordinate frames, IoU of horizontal and rotated boxes, one-to-one matching.

A box is a sequence of numbers: ``x1, y1, x2, y2``; ``x1, y1, x2, y2, angle`` with the rotation about the centre in
degrees; or six or more numbers, the corners ``x, y`` of a polygon.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import shapely

FrameKind = Literal["percent", "permille", "pixel"]
Coords = Sequence[float]
FULL_IMAGE = (0.0, 0.0, 1.0, 1.0)
GRID = 1e-11
"""Grid of coordinates on which polygons are intersected again, relative to the largest coordinate."""


@dataclass(frozen=True)
class Frame:
    """Coordinate system of boxes.

    ``percent`` spans 0..100 and ``permille`` 0..1000 of the image's width and height; ``pixel`` uses pixels of an
    image of ``width`` x ``height``. Prompts, rewards, evaluation and figures all convert through this class.

    A frame may cover part of an image, such as a tile: ``window`` is that part (left, top, right, bottom) in fractions
    of the full image; units and size then refer to the window.
    """

    kind: FrameKind = "percent"
    width: float = 0.0
    height: float = 0.0
    window: tuple[float, float, float, float] = FULL_IMAGE

    def __post_init__(self) -> None:
        if self.kind == "pixel" and not (self.width > 0 and self.height > 0):
            raise ValueError(f"a pixel frame needs a positive width and height, found {self.width} x {self.height}")
        left, top, right, bottom = self.window
        if not (left < right and top < bottom):
            raise ValueError(f"a frame's window needs left < right and top < bottom, found {self.window}")

    @property
    def scale(self) -> tuple[float, float]:
        """Width and height of the window (by default the full image) in this frame's units."""
        if self.kind == "pixel":
            return self.width, self.height
        side = 100.0 if self.kind == "percent" else 1000.0
        return side, side

    def convert(self, coords: Coords, to: Frame) -> tuple[float, ...]:
        """Convert a box to another frame of the same image; an angle is unchanged.

        Points outside the target window get coordinates below 0 or above its scale. Use `convert_coords` for rotated
        boxes: it is correct if the two frames scale x and y differently.
        """
        factors, shifts = [], []
        for axis in (0, 1):
            source_extent, target_extent = (frame.window[axis + 2] - frame.window[axis] for frame in (self, to))
            factors.append((to.scale[axis] / target_extent) / (self.scale[axis] / source_extent))
            shifts.append((self.window[axis] - to.window[axis]) / target_extent * to.scale[axis])
        corners = len(coords) - len(coords) % 2
        return tuple(c * factors[i % 2] + shifts[i % 2] if i < corners else c for i, c in enumerate(coords))


def convert_coords(coords: Coords, frame: Frame, to: Frame) -> tuple[float, ...]:
    """Convert a box to another frame; a rotated box becomes the minimum-area rectangle of its converted corners."""
    if len(coords) != 5 or not coords[4] % 180:
        return frame.convert(coords, to)
    corners = rotated_corners(np.array([coords], dtype=np.float64))[0].ravel()
    return rotated_box(frame.convert(corners.tolist(), to)) or frame.convert(coords, to)


def ordered(coords: Coords) -> tuple[float, ...]:
    """The box with its corners in the order ``x1 <= x2, y1 <= y2``; polygons are unchanged."""
    if len(coords) > 5:
        return tuple(coords)
    x1, y1, x2, y2, *angle = coords
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2), *angle


def hbb(boxes: Sequence[Coords]) -> np.ndarray:
    """Horizontal boxes (HBB), float64 [n, 4]: angles are dropped, as in the paper; polygons become their envelope."""
    rows = [b[:4] if len(b) < 6 else (min(b[::2]), min(b[1::2]), max(b[::2]), max(b[1::2])) for b in boxes]
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def envelopes(boxes: Sequence[Coords]) -> np.ndarray:
    """Horizontal envelopes of boxes, float64 [n, 4]: of the corners of rotated boxes and polygons."""
    rows = hbb(boxes)
    turned = [i for i, b in enumerate(boxes) if len(b) == 5 and b[4] % 180]
    if turned:
        corners = rotated_corners(np.array([boxes[i] for i in turned], dtype=np.float64))
        rows[turned] = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    return rows


def iou_hbb(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pairwise IoU of horizontal boxes [n, 4] and [m, 4]: [n, m] in [0, 1].

    For two boxes of zero area, IoU is 1 if they are identical, else 0.
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.maximum(high - low, 0.0), axis=2)
    area_a = np.prod(np.maximum(a[:, 2:] - a[:, :2], 0.0), axis=1)
    area_b = np.prod(np.maximum(b[:, 2:] - b[:, :2], 0.0), axis=1)
    union = area_a[:, None] + area_b[None, :] - inter
    zero_area = union <= 0.0
    iou = inter / np.where(zero_area, 1.0, union)
    if zero_area.any():
        iou = np.where(zero_area, (a[:, None] == b[None, :]).all(axis=2), iou)
    return np.minimum(iou, 1.0)


def rotated_corners(boxes: np.ndarray, sense: Literal[1, -1] = 1) -> np.ndarray:
    """Corners of rotated boxes [n, 5]: [n, 4, 2].

    ``sense`` 1 maps a corner at offset (x, y) from the centre to (x cos - y sin, x sin + y cos), as TEOChat does for
    GeoChat's boxes (ermongroup/TEOChat, eval_geochat_referring.py); -1 rotates in the opposite direction, as
    EarthDial's rs_detection/eval.py does.
    """
    centre = (boxes[:, :2] + boxes[:, 2:4]) / 2
    half = (boxes[:, 2:4] - boxes[:, :2]) / 2
    offset = half[:, None, :] * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64)
    angle = np.deg2rad(boxes[:, 4]) * sense
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x, y = offset[..., 0], offset[..., 1]
    return centre[:, None, :] + np.stack([x * cos - y * sin, x * sin + y * cos], axis=2)


def rotated_box(corners: Coords) -> tuple[float, ...] | None:
    """``x1, y1, x2, y2, angle`` of the minimum-area rectangle around corners ``x, y, x, y, ...``, in the same units.

    The angle lies in [-45, 45] degrees and follows `rotated_corners` with ``sense`` 1. None if the corners enclose no
    area.
    """
    points = list(zip(corners[::2], corners[1::2], strict=True))
    rectangle = shapely.oriented_envelope(shapely.MultiPoint(points))
    if not isinstance(rectangle, shapely.Polygon) or rectangle.area == 0:
        return None
    (ax, ay), (bx, by), (cx, cy) = list(rectangle.exterior.coords)[:3]
    width, height = math.hypot(bx - ax, by - ay), math.hypot(cx - bx, cy - by)
    angle = (math.degrees(math.atan2(by - ay, bx - ax)) + 180) % 180
    if 45 < angle < 135:
        width, height = height, width
    x, y = (ax + cx) / 2, (ay + cy) / 2
    angle -= 180 if angle >= 135 else 90 if angle > 45 else 0
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2, angle


def polygons(boxes: Sequence[Coords], sense: Literal[1, -1] = 1) -> np.ndarray:
    """Boxes as shapely polygons [n]; a self-intersecting polygon is replaced by its convex hull."""
    shapes = np.empty(len(boxes), dtype=object)
    rectangles = [i for i, b in enumerate(boxes) if len(b) < 6]
    if rectangles:
        rows = np.array([(*boxes[i], 0.0)[:5] for i in rectangles], dtype=np.float64)
        shapes[rectangles] = shapely.polygons(rotated_corners(rows, sense))
    for i, box in enumerate(boxes):
        if len(box) >= 6:
            shape = shapely.polygons(np.reshape(np.asarray(box, dtype=np.float64), (-1, 2)))
            shapes[i] = shape if shapely.is_valid(shape) else shapely.convex_hull(shape)
    return shapes


def intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersections of pairs of polygons, [n].

    GEOS 3.14 finds about one in a thousand intersections of nearly coincident polygons empty. Pairs whose interiors
    intersect nevertheless are intersected again, on a grid of `GRID` times their largest coordinate.
    """
    common = shapely.intersection(a, b)
    lost = np.flatnonzero(shapely.area(common) == 0)
    lost = lost[shapely.relate_pattern(a[lost], b[lost], "T********")]
    if len(lost):
        grid = GRID * np.abs(shapely.total_bounds(a[lost])).max()
        common[lost] = shapely.intersection(a[lost], b[lost], grid_size=grid)
    return common


def iou_polygons(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pairwise IoU of shapely polygons [n] and [m]: [n, m] in [0, 1].

    Only pairs with overlapping envelopes are intersected. For two shapes of zero area, IoU is 1 if they are equal,
    else 0.
    """
    iou = np.zeros((len(a), len(b)))
    if not len(a) or not len(b):
        return iou
    i, j = shapely.STRtree(b).query(a)
    inter = shapely.area(intersections(a[i], b[j]))
    union = shapely.area(a)[i] + shapely.area(b)[j] - inter
    same = shapely.equals(a[i], b[j])
    iou[i, j] = np.where(same, 1.0, np.minimum(inter / np.where(union > 0, union, 1.0), 1.0))
    return iou


def iou_matrix(a: Sequence[Coords], b: Sequence[Coords], rotated: bool = False) -> np.ndarray:
    """Pairwise IoU of two lists of boxes, [n, m]: of horizontal boxes, or of polygons if ``rotated``."""
    return iou_polygons(polygons(a), polygons(b)) if rotated else iou_hbb(hbb(a), hbb(b))


def match(iou: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One-to-one assignment with maximum total IoU: row and column indices, each of length min(n, m)."""
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(iou, maximize=True)
