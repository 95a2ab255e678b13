"""Objects that overlapping windows found: each once, whole, although windows cut some of them.

An object that is smaller than the overlap is whole in at least one window. What a window's inner edge cuts is therefore
only kept where no window shows it whole; the parts of one object on both sides of a seam are then united.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import shapely
from scipy.sparse import lil_array
from scipy.sparse.csgraph import connected_components

from geovlm_ray.core.geometry import intersections, polygons, rotated_box
from geovlm_ray.data.geo.scene import Window

EDGE = 0.01
"""Distance to an inner edge of a window, as a share of its side, below which a box counts as cut: answers round."""
MIN_EDGE_PIXELS = 2.0
SAME_IOU = 0.5
"""IoU from which two whole boxes of one class are one object."""
COVERED = 0.5
"""Share of a cut box within a whole one from which it is a part of it."""
TOUCHING = 0.1
"""Share of the smaller of two cut boxes within the other, where their windows overlap, from which they may be parts of
one object."""


@dataclass(frozen=True)
class Detection:
    """A box in pixels of the scene, horizontal or rotated (`geovlm_ray.core.geometry`), found in a window."""

    box: tuple[float, ...]
    label: str | None
    score: float
    window: Window
    agreement: float | None = None


def merged(detections: Sequence[Detection], width: int, height: int) -> list[Detection]:
    """The objects of a scene of ``width`` x ``height`` pixels, by descending score; classes are merged separately."""
    found = []
    for label in {detection.label: None for detection in detections}:
        same = [detection for detection in detections if detection.label == label]
        cut = [is_cut(detection, width, height) for detection in same]
        whole = _distinct([d for d, is_part in zip(same, cut, strict=True) if not is_part])
        parts = _uncovered([d for d, is_part in zip(same, cut, strict=True) if is_part], whole)
        found += whole + _distinct(_united(parts))
    return sorted(found, key=lambda d: (-d.score, d.box))


def is_cut(detection: Detection, width: int, height: int) -> bool:
    """Whether a box touches an edge of its window that is not an edge of the scene."""
    window = detection.window
    left, top, right, bottom = _shape(detection).bounds
    near = max(MIN_EDGE_PIXELS, EDGE * max(window.width, window.height))
    return (
        (window.left > 0 and left - window.left <= near)
        or (window.top > 0 and top - window.top <= near)
        or (window.right < width and window.right - right <= near)
        or (window.bottom < height and window.bottom - bottom <= near)
    )


def _distinct(detections: Sequence[Detection]) -> list[Detection]:
    """Greedy non-maximum suppression: of boxes that are one object, the one with the highest score."""
    ordered = sorted(detections, key=lambda d: (-d.score, d.box))
    shapes = polygons([d.box for d in ordered])
    areas = shapely.area(shapes)
    kept = np.ones(len(ordered), dtype=bool)
    for i, j in _overlapping(shapes, shapes):
        if i < j and kept[i] and kept[j]:
            common = _common_area(shapes[i], shapes[j])
            kept[j] = common < SAME_IOU * (areas[i] + areas[j] - common)
    return [d for d, keep in zip(ordered, kept, strict=True) if keep]


def _uncovered(parts: Sequence[Detection], whole: Sequence[Detection]) -> list[Detection]:
    """The cut boxes that are no part of a whole one."""
    shapes, others = polygons([d.box for d in parts]), polygons([d.box for d in whole])
    kept = np.ones(len(parts), dtype=bool)
    for i, j in _overlapping(shapes, others):
        kept[i] &= _common_area(shapes[i], others[j]) < COVERED * shapes[i].area
    return [d for d, keep in zip(parts, kept, strict=True) if keep]


def _united(parts: Sequence[Detection]) -> list[Detection]:
    """Unite the parts of one object that several windows show; its score is that of the best part.

    Where two windows overlap, both show the same piece of an object: of their parts there, those that agree best are of
    one object, so that two windows never give more than one part each.
    """
    shapes = polygons([d.box for d in parts])
    same = lil_array((len(parts), len(parts)), dtype=bool)
    candidates: defaultdict[tuple[Window, Window], list[tuple[float, int, int]]] = defaultdict(list)
    for i, j in _overlapping(shapes, shapes):
        if i >= j:
            continue
        one, other = sorted((i, j), key=lambda k: astuple(parts[k].window))
        if (iou := _agreement(parts[one], parts[other], shapes[one], shapes[other])) is not None:
            candidates[parts[one].window, parts[other].window].append((iou, one, other))
    for found in candidates.values():
        taken: set[int] = set()
        for _, i, j in sorted(found, key=lambda pair: (-pair[0], *pair[1:])):
            if i not in taken and j not in taken:
                same[i, j] = True
                taken |= {i, j}
    united = []
    number, groups = connected_components(same, directed=False)
    members_of: list[list[Detection]] = [[] for _ in range(number)]
    for part, group in zip(parts, groups, strict=True):
        members_of[group].append(part)
    for members in members_of:
        best = max(members, key=lambda d: d.score)
        united.append(replace(best, box=_around(members)) if len(members) > 1 else best)
    return united


def _agreement(one: Detection, other: Detection, a: shapely.Geometry, b: shapely.Geometry) -> float | None:
    """IoU of two cut boxes of one window, or of two where these overlap; None if they are different objects."""
    if one.window != other.window:
        zone = shapely.intersection(_frame(one.window), _frame(other.window))
        a, b = intersections(np.array([a, b]), np.array([zone, zone]))
    common = _common_area(a, b)
    iou = common / max(a.area + b.area - common, 1e-9)
    is_same = iou >= SAME_IOU if one.window == other.window else common > TOUCHING * min(a.area, b.area)
    return iou if is_same else None


def _around(members: Sequence[Detection]) -> tuple[float, ...]:
    """The box around several: horizontal if all are, else the smallest rotated one."""
    shape = shapely.union_all(polygons([d.box for d in members]))
    if all(len(d.box) == 4 for d in members):
        return shape.bounds
    corners = shapely.get_coordinates(shape).ravel().tolist()
    return rotated_box(corners) or shape.bounds


def _overlapping(a: np.ndarray, b: np.ndarray) -> list[tuple[int, int]]:
    """Index pairs of shapes that intersect, in ascending order."""
    if not len(a) or not len(b):
        return []
    pairs = shapely.STRtree(b).query(a, predicate="intersects").T
    return sorted((int(i), int(j)) for i, j in pairs)


def _common_area(a: shapely.Geometry, b: shapely.Geometry) -> float:
    return float(shapely.area(intersections(np.array([a]), np.array([b])))[0])


def _frame(window: Window) -> shapely.Geometry:
    return shapely.box(window.left, window.top, window.right, window.bottom)


def _shape(detection: Detection) -> shapely.Geometry:
    return polygons([detection.box])[0]
