"""Boxes: coordinate frames, horizontal and rotated intersection over union, one-to-one matching.

A box is a sequence of numbers: ``x1, y1, x2, y2``; the same and an angle in degrees, which turns that
rectangle about its centre; or six and more numbers, the corners ``x, y`` of a polygon.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import shapely
from scipy.optimize import linear_sum_assignment

FrameKind = Literal["percent", "permille", "pixel"]
Coords = Sequence[float]
WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Frame:
    """The coordinate system in which a dataset writes its boxes.

    ``percent`` counts 0..100 and ``permille`` 0..1000 of the image's width and height; ``pixel`` counts
    pixels of an image of ``width`` x ``height``. Prompt, reward, evaluation and pictures all convert
    through this one class.

    A frame may belong to a part of the image, such as a tile: ``window`` is that part (left, top, right, bottom) in
    fractions of the whole image, and units and size are then those of the part.
    """

    kind: FrameKind = "percent"
    width: float = 0.0
    height: float = 0.0
    window: tuple[float, float, float, float] = WHOLE

    def __post_init__(self) -> None:
        if self.kind == "pixel" and not (self.width > 0 and self.height > 0):
            raise ValueError(f"a pixel frame needs a positive width and height, found {self.width} x {self.height}")
        left, top, right, bottom = self.window
        if not (left < right and top < bottom):
            raise ValueError(f"a frame's window needs left < right and top < bottom, found {self.window}")

    @property
    def scale(self) -> tuple[float, float]:
        """Width and height, in this frame's units, of what it covers: the whole image or the window."""
        if self.kind == "pixel":
            return self.width, self.height
        side = 100.0 if self.kind == "percent" else 1000.0
        return side, side

    def convert(self, coords: Coords, to: Frame) -> tuple[float, ...]:
        """A box of this frame in the units of another frame of the same image; an angle stays as it is.

        What lies outside the other frame's window has coordinates below 0 or beyond its scale. `turn` keeps a rotated
        box on its object where the two frames' units differ in shape.
        """
        factors, shifts = [], []
        for axis in (0, 1):
            here, there = (frame.window[axis + 2] - frame.window[axis] for frame in (self, to))
            factors.append((to.scale[axis] / there) / (self.scale[axis] / here))
            shifts.append((self.window[axis] - to.window[axis]) / there * to.scale[axis])
        corners = len(coords) - len(coords) % 2
        return tuple(c * factors[i % 2] + shifts[i % 2] if i < corners else c for i, c in enumerate(coords))


def turn(coords: Coords, frame: Frame, to: Frame) -> tuple[float, ...]:
    """A box of one frame in another, a rotated one as the smallest rectangle around its converted corners."""
    if len(coords) != 5 or not coords[4] % 180:
        return frame.convert(coords, to)
    corners = rotated_corners(np.array([coords], dtype=np.float64))[0].ravel()
    return rotated_box(frame.convert(corners.tolist(), to)) or frame.convert(coords, to)


def hbb(boxes: Sequence[Coords]) -> np.ndarray:
    """Horizontal boxes, float64 [n, 4]: an angle is dropped (the paper's HBB), a polygon becomes its envelope."""
    rows = [b[:4] if len(b) < 6 else (min(b[::2]), min(b[1::2]), max(b[::2]), max(b[1::2])) for b in boxes]
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def iou_hbb(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of horizontal boxes: [n, 4] and [m, 4] to [n, m] in [0, 1].

    Two boxes that together cover no area have 1 where they are the same box and 0 elsewhere.
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.maximum(high - low, 0.0), axis=2)
    area_a = np.prod(np.maximum(a[:, 2:] - a[:, :2], 0.0), axis=1)
    area_b = np.prod(np.maximum(b[:, 2:] - b[:, :2], 0.0), axis=1)
    union = area_a[:, None] + area_b[None, :] - inter
    flat = union <= 0.0
    iou = inter / np.where(flat, 1.0, union)
    if flat.any():
        iou = np.where(flat, (a[:, None] == b[None, :]).all(axis=2), iou)
    return np.minimum(iou, 1.0)


def rotated_corners(boxes: np.ndarray, sense: Literal[1, -1] = 1) -> np.ndarray:
    """Corners of rotated boxes: [n, 5] to [n, 4, 2].

    With ``sense`` 1 a corner at (x, y) from the centre goes to (x cos - y sin, x sin + y cos), as TEOChat
    reads GeoChat's boxes (ermongroup/TEOChat, eval_geochat_referring.py); -1 is the opposite sense, that of
    EarthDial's rs_detection/eval.py.
    """
    centre = (boxes[:, :2] + boxes[:, 2:4]) / 2
    half = (boxes[:, 2:4] - boxes[:, :2]) / 2
    offset = half[:, None, :] * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64)
    angle = np.deg2rad(boxes[:, 4]) * sense
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x, y = offset[..., 0], offset[..., 1]
    return centre[:, None, :] + np.stack([x * cos - y * sin, x * sin + y * cos], axis=2)


def rotated_box(corners: Coords) -> tuple[float, ...] | None:
    """``x1, y1, x2, y2, angle`` of the smallest rectangle around corners ``x, y, x, y, ...``, in their units.

    The angle, from -45 to 45 degrees, turns as `rotated_corners` does with sense 1. None where the corners enclose
    no area.
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
    middle_x, middle_y = (ax + cx) / 2, (ay + cy) / 2
    return (
        middle_x - width / 2,
        middle_y - height / 2,
        middle_x + width / 2,
        middle_y + height / 2,
        angle - 180 if angle >= 135 else angle - 90 if angle > 45 else angle,
    )


def polygons(boxes: Sequence[Coords], sense: Literal[1, -1] = 1) -> np.ndarray:
    """Boxes as shapely polygons [n]; a polygon that crosses itself is taken by its convex hull."""
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


def iou_polygons(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of shapely polygons: [n] and [m] to [n, m] in [0, 1].

    Only pairs whose envelopes meet are intersected. Shapes that together cover no area have 1 where they
    are the same shape and 0 elsewhere.
    """
    iou = np.zeros((len(a), len(b)))
    if not len(a) or not len(b):
        return iou
    i, j = shapely.STRtree(b).query(a)
    inter = shapely.area(shapely.intersection(a[i], b[j]))
    union = shapely.area(a)[i] + shapely.area(b)[j] - inter
    same = shapely.equals(a[i], b[j])
    iou[i, j] = np.where(same, 1.0, np.minimum(inter / np.where(union > 0, union, 1.0), 1.0))
    return iou


def iou_matrix(a: Sequence[Coords], b: Sequence[Coords], rotated: bool = False) -> np.ndarray:
    """Intersection over union of two lists of boxes, [n, m]: horizontal, or by polygons where ``rotated``."""
    return iou_polygons(polygons(a), polygons(b)) if rotated else iou_hbb(hbb(a), hbb(b))


def match(iou: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One-to-one matching of greatest total: row and column indices, each of length min(n, m)."""
    return linear_sum_assignment(iou, maximize=True)
