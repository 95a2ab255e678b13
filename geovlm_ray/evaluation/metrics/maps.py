"""Metrics of a map: objects that were found, against those of a reference layer, on the ground.

Objects of one class match one to one. Precision, recall and F1 use the maximum matching at IoU >= 0.5. Average
precision is COCO's (Lin et al., 2014; pycocotools): in descending order of score, each object takes the free reference
object with the highest IoU at or above the threshold; precision, made monotonic, is averaged at 101 levels of recall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from geovlm_ray.core.geometry import intersections

THRESHOLD = 0.5
COCO_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_LEVELS = np.linspace(0, 1, 101)
SIZES_M = {"below 8 m": 8.0, "8 to 32 m": 32.0, "32 to 128 m": 128.0, "128 m and above": np.inf}
"""Groups of objects by the square root of their area, with the upper limit of each."""
GRID = 4
"""Areas along each side of a scene in which objects are counted."""


@dataclass(frozen=True)
class MapObjects:
    """Polygons [n], in metres for `map_metrics`, their classes, and the scores [n] of those that were found."""

    shapes: np.ndarray
    labels: tuple[str, ...]
    scores: np.ndarray

    def select(self, chosen: np.ndarray) -> MapObjects:
        """The objects with the given indices."""
        labels = tuple(self.labels[i] for i in chosen)
        return MapObjects(self.shapes[chosen], labels, self.scores[chosen])

    def of_class(self, label: str) -> MapObjects:
        """The objects of a class."""
        return self.select(np.array([i for i, other in enumerate(self.labels) if other == label], dtype=np.int64))


@dataclass(frozen=True)
class _Matched:
    """Found and reference objects of one class; ``match`` [found] is the reference object of each, -1 for none."""

    found: MapObjects
    truth: MapObjects
    match: np.ndarray

    @property
    def is_right(self) -> np.ndarray:
        """Whether each found object has a reference object, [found]."""
        return self.match >= 0

    @property
    def is_found(self) -> np.ndarray:
        """Whether each reference object was found, [true]."""
        return np.isin(np.arange(len(self.truth.labels)), self.match)


@dataclass(frozen=True)
class _Pairs:
    """Index pairs of found and reference objects that overlap, [p] each, and their IoU."""

    found: np.ndarray
    true: np.ndarray
    iou: np.ndarray


def map_metrics(found: MapObjects, truth: MapObjects, bounds: tuple[float, float, float, float]) -> dict[str, Any]:
    """Metrics of all classes and of each, by size and by area; ``bounds`` of the scene are x1, y1, x2, y2 in metres.

    ``all`` pools the counts of the classes and has their mean average precision.
    """
    classes = {}
    matched = []
    for label in sorted({*truth.labels, *found.labels}):
        mine, right = found.of_class(label), truth.of_class(label)
        pairs = _pairs(mine.shapes, right.shapes)
        matched.append(_Matched(mine, right, _matching(pairs, len(mine.labels), len(right.labels))))
        classes[label] = _counts(matched[-1:]) | _average_precision(pairs, mine.scores, len(right.labels))
    precisions = [row for label, row in classes.items() if row["true"]]
    mean = {k: float(np.mean([row[k] for row in precisions])) for k in ("AP@0.5", "AP@[.5:.95]")} if precisions else {}
    return {
        "all": _counts(matched) | mean,
        "classes": classes,
        "sizes": _by_size(matched),
        "areas": _by_area(found, truth, bounds),
    }


def _pairs(found: np.ndarray, true: np.ndarray) -> _Pairs:
    if not len(found) or not len(true):
        none = np.zeros(0, dtype=np.int64)
        return _Pairs(none, none, np.zeros(0))
    i, j = shapely.STRtree(true).query(found, predicate="intersects")
    common = shapely.area(intersections(found[i], true[j]))
    return _Pairs(i, j, common / (shapely.area(found[i]) + shapely.area(true[j]) - common))


def _matching(pairs: _Pairs, found: int, true: int) -> np.ndarray:
    """The reference object of each found one in the maximum matching, [found]; -1 for none."""
    good = pairs.iou >= THRESHOLD
    if not good.any():
        return np.full(found, -1)
    graph = coo_array((np.ones(good.sum()), (pairs.found[good], pairs.true[good])), shape=(found, true)).tocsr()
    return np.asarray(maximum_bipartite_matching(graph, perm_type="column"))


def _counts(matched: Sequence[_Matched]) -> dict[str, float]:
    found, true = sum(len(m.found.labels) for m in matched), sum(len(m.truth.labels) for m in matched)
    right = sum(int(m.is_right.sum()) for m in matched)
    counts = {
        "true": true,
        "found": found,
        "right": right,
        "precision": right / found if found else 0.0,
        "recall": right / true if true else 0.0,
        "F1": 2 * right / (found + true) if found + true else 0.0,
    }
    if not right:
        return counts
    distances = np.concatenate([_distances(m) for m in matched])
    return counts | {
        "position error, m": float(np.median(distances)),
        "position error p90, m": float(np.percentile(distances, 90)),
    }


def _distances(matched: _Matched) -> np.ndarray:
    """Distances of the centroids of matched objects in metres."""
    mine, right = matched.found.shapes[matched.is_right], matched.truth.shapes[matched.match[matched.is_right]]
    return np.asarray(shapely.distance(shapely.centroid(mine), shapely.centroid(right)), dtype=np.float64)


def _average_precision(pairs: _Pairs, scores: np.ndarray, true: int) -> dict[str, float]:
    if not true:
        return {}
    values = [_precision_at(threshold, pairs, scores, true) for threshold in COCO_THRESHOLDS]
    return {"AP@0.5": values[0], "AP@[.5:.95]": float(np.mean(values))}


def _precision_at(threshold: float, pairs: _Pairs, scores: np.ndarray, true: int) -> float:
    candidates: dict[int, list[tuple[float, int]]] = {}
    for i, j, iou in zip(pairs.found.tolist(), pairs.true.tolist(), pairs.iou.tolist(), strict=True):
        if iou >= threshold:
            candidates.setdefault(i, []).append((iou, j))
    taken: set[int] = set()
    is_hit = []
    for i in np.argsort(-scores, kind="stable").tolist():
        free = [pair for pair in candidates.get(i, ()) if pair[1] not in taken]
        is_hit.append(bool(free))
        if free:
            taken.add(max(free)[1])
    hits = np.cumsum(is_hit)
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    at_level = np.searchsorted(hits / true, RECALL_LEVELS, side="left")
    return float(np.append(precision, 0.0)[at_level].mean())


def _by_size(matched: Sequence[_Matched]) -> dict[str, dict[str, float]]:
    """Recall of the reference objects of each size, and precision of the found ones."""
    rows = {}
    low = 0.0
    for name, high in SIZES_M.items():
        right = np.concatenate([m.is_right[_size_between(m.found.shapes, low, high)] for m in matched])
        seen = np.concatenate([m.is_found[_size_between(m.truth.shapes, low, high)] for m in matched])
        rows[name] = {
            "true": len(seen),
            "found": len(right),
            **({"precision": float(right.mean())} if len(right) else {}),
            **({"recall": float(seen.mean())} if len(seen) else {}),
        }
        low = high
    return rows


def _size_between(shapes: np.ndarray, low: float, high: float) -> np.ndarray:
    side = np.sqrt(shapely.area(shapes)) if len(shapes) else np.zeros(0)
    return (side >= low) & (side < high)


def _by_area(found: MapObjects, truth: MapObjects, bounds: tuple[float, float, float, float]) -> dict[str, Any]:
    """Numbers of objects in each area of a grid over the scene, [GRID][GRID] from the north-west, and their error."""
    counts = {name: _grid_counts(objects.shapes, bounds) for name, objects in (("true", truth), ("found", found))}
    error = np.abs(counts["found"] - counts["true"]).mean()
    return {name: value.tolist() for name, value in counts.items()} | {"mean absolute error": float(error)}


def _grid_counts(shapes: np.ndarray, bounds: tuple[float, float, float, float]) -> np.ndarray:
    if not len(shapes):
        return np.zeros((GRID, GRID), dtype=np.int64)
    x1, y1, x2, y2 = bounds
    centres = shapely.get_coordinates(shapely.centroid(shapes))
    steps = ((centres - [x1, y1]) / [x2 - x1, y2 - y1] * GRID).astype(np.int64).clip(0, GRID - 1)
    counts = np.zeros((GRID, GRID), dtype=np.int64)
    np.add.at(counts, (GRID - 1 - steps[:, 1], steps[:, 0]), 1)
    return counts
