"""Objects that overlapping windows found: each once, whole, although windows cut some of them.

An object that is smaller than the overlap is whole in at least one window. What a window's inner edge cuts is therefore
only kept where no window shows it whole; the parts of one object on both sides of a seam are then united.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geovlm_ray.core.geometry import intersections, polygons, rotated_box
from geovlm_ray.data.geo.scene import Window

EDGE = 0.01
"""Distance to an inner edge of a window, as a share of its side, below which a box counts as cut: answers round."""
MIN_EDGE_PIXELS = 2.0
SAME_IOU = 0.5
"""IoU from which boxes of one class, found in two windows, are one object."""
REPEATED_IOU = 0.9
"""IoU from which boxes that one window found are one object: diagonal neighbours have upright boxes that overlap."""
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
    """The objects of a scene of ``width`` x ``height`` pixels, by descending score; classes are merged separately.

    A box without a label has that of a labelled one of the same place, if there is one.
    """
    found = []
    labelled = _with_labels(sorted(detections, key=_by_score))
    for label in {detection.label: None for detection in labelled}:
        same = [detection for detection in labelled if detection.label == label]
        cut = are_cut(same, width, height)
        whole, windows = _distinct([d for d, is_part in zip(same, cut, strict=True) if not is_part])
        parts = _uncovered([d for d, is_part in zip(same, cut, strict=True) if is_part], whole, windows)
        found += whole + _distinct(_united(parts))[0]
    return sorted(found, key=_by_score)


def are_cut(detections: Sequence[Detection], width: int, height: int) -> np.ndarray:
    """Which boxes touch an edge of their window that is not an edge of the scene, bool [n]."""
    bounds = shapely.bounds(polygons([d.box for d in detections])).reshape(-1, 4)
    sides = _sides(detections)
    near = np.maximum(MIN_EDGE_PIXELS, EDGE * (sides[:, 2:] - sides[:, :2]).max(axis=1, initial=0))[:, None]
    at_start = (sides[:, :2] > 0) & (bounds[:, :2] - sides[:, :2] <= near)
    at_end = (sides[:, 2:] < [width, height]) & (sides[:, 2:] - bounds[:, 2:] <= near)
    return (at_start | at_end).any(axis=1)


def _by_score(detection: Detection) -> tuple[float, tuple[float, ...]]:
    return -detection.score, detection.box


def _with_labels(detections: Sequence[Detection]) -> list[Detection]:
    """The detections; those without a label have that of the labelled one that agrees best with them."""
    labels = [d.label for d in detections]
    named = np.array([label is not None for label in labels], dtype=bool)
    if named.all() or not named.any():
        return list(detections)
    shapes = polygons([d.box for d in detections])
    i, j = _overlapping(shapes[~named], shapes[named])
    i, j = np.flatnonzero(~named)[i], np.flatnonzero(named)[j]
    iou, _ = _agreement(detections, shapes, i, j)
    is_same = iou >= np.where(_in_one_window(detections, i, j), REPEATED_IOU, SAME_IOU)
    for k in np.argsort(iou, kind="stable"):
        if is_same[k]:
            labels[i[k]] = labels[j[k]]
    return [replace(d, label=label) for d, label in zip(detections, labels, strict=True)]


def _distinct(detections: Sequence[Detection]) -> tuple[list[Detection], list[set[Window]]]:
    """Greedy non-maximum suppression: of boxes that are one object, the one with the highest score.

    Also returns the windows that each of them was found in.
    """
    ordered = sorted(detections, key=_by_score)
    shapes = polygons([d.box for d in ordered])
    i, j = _overlapping(shapes, shapes, once=True)
    common = shapely.area(intersections(shapes[i], shapes[j]))
    areas = shapely.area(shapes)
    iou = common / np.maximum(areas[i] + areas[j] - common, 1e-9)
    kept = np.ones(len(ordered), dtype=bool)
    windows = [{d.window} for d in ordered]
    for first, second in sorted(_same_objects(ordered, i, j, iou, iou >= SAME_IOU)):
        if kept[first] and kept[second]:
            kept[second] = False
            windows[first] |= windows[second]
    chosen = np.flatnonzero(kept)
    return [ordered[k] for k in chosen], [windows[k] for k in chosen]


def _same_objects(
    detections: Sequence[Detection], i: np.ndarray, j: np.ndarray, iou: np.ndarray, may_be_same: np.ndarray
) -> Iterator[tuple[int, int]]:
    """The pairs that are one object.

    An object has at most one box in each of two windows: of pairs that may be one, those with the highest IoU are. In
    one window, only a repeated box is the same object.
    """
    numbers = {window: n for n, window in enumerate(dict.fromkeys(d.window for d in detections))}
    window = np.array([numbers[d.window] for d in detections], dtype=np.int64)
    taken: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for k in np.lexsort((j, i, -iou)):
        one, other = int(i[k]), int(j[k])
        low, high = sorted((int(window[one]), int(window[other])))
        if low == high:
            if iou[k] >= REPEATED_IOU:
                yield one, other
        elif may_be_same[k] and taken[low, high].isdisjoint((one, other)):
            taken[low, high] |= {one, other}
            yield one, other


def _uncovered(
    parts: Sequence[Detection], whole: Sequence[Detection], windows: Sequence[set[Window]]
) -> list[Detection]:
    """The cut boxes that are no part of a whole one; ``windows`` are those that found the whole ones.

    A window that found an object whole means another one by its cut box.
    """
    shapes, others = polygons([d.box for d in parts]), polygons([d.box for d in whole])
    i, j = _overlapping(shapes, others)
    is_part = shapely.area(intersections(shapes[i], others[j])) >= COVERED * shapely.area(shapes[i])
    is_part &= np.array([parts[a].window not in windows[b] for a, b in zip(i, j, strict=True)], dtype=bool)
    covered = set(i[is_part].tolist())
    return [d for k, d in enumerate(parts) if k not in covered]


def _united(parts: Sequence[Detection]) -> list[Detection]:
    """Unite the parts of one object that several windows show; its score is that of the best part.

    Where two windows overlap, both show the same piece of an object: of their parts there, those that agree best are of
    one object, so that two windows never give more than one part each.
    """
    shapes = polygons([d.box for d in parts])
    i, j = _overlapping(shapes, shapes, once=True)
    iou, common = _agreement(parts, shapes, i, j)
    pairs = np.array(list(_same_objects(parts, i, j, iou, common > TOUCHING)), dtype=np.int64).reshape(-1, 2)
    links = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(parts), len(parts)))
    number, groups = connected_components(links, directed=False)
    members_of: list[list[Detection]] = [[] for _ in range(number)]
    for part, group in zip(parts, groups, strict=True):
        members_of[group].append(part)
    united = []
    for members in members_of:
        best = max(members, key=lambda d: d.score)
        united.append(replace(best, box=_around(members)) if len(members) > 1 else best)
    return united


def _agreement(
    detections: Sequence[Detection], shapes: np.ndarray, i: np.ndarray, j: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How pairs agree where their windows overlap: IoU, and common area as a share of the smaller one, [n] each."""
    frames = shapely.box(*_sides(detections).T)
    zones = shapely.intersection(frames[i], frames[j])
    a, b = intersections(shapes[i], zones), intersections(shapes[j], zones)
    common, first, second = shapely.area(intersections(a, b)), shapely.area(a), shapely.area(b)
    iou = common / np.maximum(first + second - common, 1e-9)
    return iou, common / np.maximum(np.minimum(first, second), 1e-9)


def _in_one_window(detections: Sequence[Detection], i: np.ndarray, j: np.ndarray) -> np.ndarray:
    pairs = zip(i, j, strict=True)
    return np.array([detections[a].window == detections[b].window for a, b in pairs], dtype=bool)


def _around(members: Sequence[Detection]) -> tuple[float, ...]:
    """The box around several: horizontal if all are, else the smallest rotated one."""
    shape = shapely.union_all(polygons([d.box for d in members]))
    if all(len(d.box) == 4 for d in members):
        return shape.bounds
    corners = shapely.get_coordinates(shape).ravel().tolist()
    return rotated_box(corners) or shape.bounds


def _overlapping(a: np.ndarray, b: np.ndarray, *, once: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Indices [n] and [n] of shapes that intersect; with ``once``, a and b are one list and each pair is there once."""
    i, j = shapely.STRtree(b).query(a, predicate="intersects")
    return (i[i < j], j[i < j]) if once else (i, j)


def _sides(detections: Sequence[Detection]) -> np.ndarray:
    """Left, top, right and bottom of the windows of boxes, float64 [n, 4]."""
    windows = (d.window for d in detections)
    return np.array([(w.left, w.top, w.right, w.bottom) for w in windows], dtype=np.float64).reshape(-1, 4)
