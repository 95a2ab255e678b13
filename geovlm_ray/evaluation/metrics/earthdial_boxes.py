"""Boxes as EarthDial's evaluation reads and compares them: pooled precision.

Source: hiyamdebary/EarthDial, src/earthdial/eval/rs_detection/eval.py and the two scripts that repeat it. Angles
turn in the sense opposite to the one in which TEOChat reads the same boxes, which changes the overlap of turned
boxes whose centres differ.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np
import shapely

from geovlm_ray.core.geometry import Coords
from geovlm_ray.tasks.boxes import MAX_COORDINATE

BoxPairs = Sequence[tuple[Sequence[Coords], Sequence[Coords]]]
"""Predicted and true boxes of each record."""

_INTEGERS = re.compile(r"\[\s*(\d+(?:,\s*\d+)*)\s*\]")


def read_boxes(text: str, length: int | None = None) -> list[Coords]:
    """Every innermost bracket that holds nothing but unsigned integers, or only those of ``length`` numbers.

    A box with a negative number or a fraction is not seen: neither as an answer nor as truth.
    """
    boxes = [tuple(map(float, numbers.split(","))) for numbers in _INTEGERS.findall(text)]
    return [box for box in boxes if length in (None, len(box))]


def hits(predicted: Sequence[Coords], truth: Sequence[Coords], threshold: float) -> int:
    """How many predicted boxes overlap any true one with a polygon IoU of at least ``threshold``.

    Not one-to-one: any number of predictions may hit the same true box. A prediction that has not five numbers
    hits nothing; neither does one that reaches a true box without five numbers before it has hit, because the
    script raises there and gives that prediction up. Boxes without area hit nothing.
    """
    reached = itertools.takewhile(lambda box: len(box) == 5, truth)
    a, b = _polygons([box for box in predicted if len(box) == 5]), _polygons(list(reached))
    i, j = shapely.STRtree(b).query(a)
    # The union is computed, not derived from the areas, so that a pair at the threshold falls as published.
    iou = shapely.area(shapely.intersection(a[i], b[j])) / shapely.area(shapely.union(a[i], b[j]))
    return len(np.unique(i[iou >= threshold]))


def count_hits(boxes: BoxPairs, threshold: float) -> np.ndarray:
    """`hits` and number of predictions of each record: integers [n, 2]."""
    rows = [(hits(predicted, truth, threshold), len(predicted)) for predicted, truth in boxes]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def pooled_precision(counts: np.ndarray) -> float:
    """Hits over predictions of `count_hits`, both summed over records; 0 without hits.

    Recall plays no part, and records with many predictions weigh more.
    """
    found, predicted = counts.sum(axis=0)
    return float(found / predicted) if found else 0.0


def _polygons(boxes: list[Coords]) -> np.ndarray:
    """The valid rotated rectangles among boxes of five numbers, as shapely polygons.

    Corners are row vectors times the matrix of the angle, multiplied as the scripts do it: at the threshold the
    last bit decides.
    """
    rows = np.array([box for box in boxes if max(map(abs, box)) <= MAX_COORDINATE], dtype=np.float64).reshape(-1, 5)
    corners = rows[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
    centre = (rows[:, None, :2] + rows[:, None, 2:4]) / 2
    cos, sin = np.cos(np.radians(rows[:, 4])), np.sin(np.radians(rows[:, 4]))
    rotation = np.stack([cos, -sin, sin, cos], axis=1).reshape(-1, 2, 2)
    shapes = shapely.polygons((corners - centre) @ rotation + centre)
    return shapes[shapely.is_valid(shapes)]
