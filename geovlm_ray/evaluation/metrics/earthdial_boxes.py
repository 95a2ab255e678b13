"""Box parsing and pooled precision of EarthDial's evaluation.

Source: hiyamdebary/EarthDial, src/earthdial/eval/rs_detection/eval.py and two scripts with the same code. Angles rotate
in the opposite direction to TEOChat's reading of the same boxes, which changes the IoU of rotated boxes with different
centres.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np
import shapely

from geovlm_ray.core.geometry import Coords
from geovlm_ray.tasks.answers.box_dialects import MAX_COORDINATE

BoxPairs = Sequence[tuple[Sequence[Coords], Sequence[Coords]]]
"""Predicted and true boxes of each record."""

_INTEGERS = re.compile(r"\[\s*(\d+(?:,\s*\d+)*)\s*\]")


def read_boxes(text: str, length: int | None = None) -> list[Coords]:
    """Parse every innermost bracket of unsigned integers; with ``length``, only those with that many numbers.

    Boxes with a negative or fractional number are ignored, in answers and in references.
    """
    boxes = [tuple(map(float, numbers.split(","))) for numbers in _INTEGERS.findall(text)]
    return [box for box in boxes if length in (None, len(box))]


def hits(predicted: Sequence[Coords], truth: Sequence[Coords], threshold: float) -> int:
    """Number of predicted boxes with a polygon IoU of at least ``threshold`` with any true box.

    Not one-to-one: several predictions can hit the same true box. A prediction without five numbers never hits. True
    boxes from the first one without five numbers on are ignored, because the script raises there and abandons the
    prediction. Boxes without area hit nothing.
    """
    before_malformed = itertools.takewhile(lambda box: len(box) == 5, truth)
    a, b = _polygons([box for box in predicted if len(box) == 5]), _polygons(list(before_malformed))
    i, j = shapely.STRtree(b).query(a)
    # Compute the union instead of deriving it from the areas, so that pairs at the threshold match the published code.
    iou = shapely.area(shapely.intersection(a[i], b[j])) / shapely.area(shapely.union(a[i], b[j]))
    return len(np.unique(i[iou >= threshold]))


def count_hits(boxes: BoxPairs, threshold: float) -> np.ndarray:
    """`hits` and the number of predictions of each record: integers [n, 2]."""
    rows = [(hits(predicted, truth, threshold), len(predicted)) for predicted, truth in boxes]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def pooled_precision(counts: np.ndarray) -> float:
    """Hits / predictions of `count_hits`, both summed over records; 0 without hits.

    Recall is ignored, and records with more predictions weigh more.
    """
    hit_count, predicted = counts.sum(axis=0)
    return float(hit_count / predicted) if hit_count else 0.0


def _polygons(boxes: list[Coords]) -> np.ndarray:
    """The valid rotated rectangles among boxes of five numbers, as shapely polygons.

    Corners are row vectors times the rotation matrix, multiplied in the order of the scripts, because at the threshold
    the last bit decides.
    """
    rows = np.array([box for box in boxes if max(map(abs, box)) <= MAX_COORDINATE], dtype=np.float64).reshape(-1, 5)
    corners = rows[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
    centre = (rows[:, None, :2] + rows[:, None, 2:4]) / 2
    cos, sin = np.cos(np.radians(rows[:, 4])), np.sin(np.radians(rows[:, 4]))
    rotation = np.stack([cos, -sin, sin, cos], axis=1).reshape(-1, 2, 2)
    shapes = shapely.polygons((corners - centre) @ rotation + centre)
    return shapes[shapely.is_valid(shapes)]
