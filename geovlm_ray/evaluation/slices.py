"""Mean score by object size, number of objects, sensor, ground sampling distance, dataset and record category."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from geovlm_ray.core.schema import Example
from geovlm_ray.evaluation.metrics.bootstrap import Interval, intervals, means
from geovlm_ray.evaluation.metrics.detection import size_group
from geovlm_ray.evaluation.metrics.sound import true_boxes

OBJECT_COUNTS = ((2, "1"), (5, "2 to 4"), (10, "5 to 9"), (np.inf, "10 or more"))
GSD_RANGES = ((1.0, "below 1 m"), (5.0, "1 to 5 m"), (15.0, "5 to 15 m"), (np.inf, "15 m or more"))
RESAMPLES = 1000


@dataclass(frozen=True)
class Slice:
    """Mean score of n records, with its interval."""

    n: int
    score: Interval


def score_slices(examples: Sequence[Example], scores: Sequence[float], groups: Sequence[str | None]) -> dict:
    """Slices as ``{dimension: {value: Slice}}``, without dimensions that have fewer than two values.

    ``groups`` has the category of each record in its dataset, None if it has none.
    """
    score_array = np.asarray(scores, dtype=np.float64)
    slices: dict[str, dict[str, Slice]] = {}
    for dimension, value_of in DIMENSIONS.items():
        values = np.array([value_of(example) or "" for example in examples])
        slices |= _split(dimension, values, score_array)
    return slices | _split("type", np.array([group or "" for group in groups]), score_array)


def _split(dimension: str, values: np.ndarray, scores: np.ndarray) -> dict[str, dict[str, Slice]]:
    names = [str(value) for value in dict.fromkeys(values.tolist()) if value]
    if len(names) < 2:
        return {}
    return {dimension: {name: score_slice(scores[values == name]) for name in sorted(names)}}


def score_slice(scores: np.ndarray) -> Slice:
    """Mean of scores [n], n > 0, with its bootstrap interval."""
    return Slice(len(scores), intervals(means({"score": scores}), len(scores), RESAMPLES)["score"])


def _size(example: Example) -> str | None:
    return size_group(true_boxes(example), example.frame)


def _count(example: Example) -> str | None:
    boxes = true_boxes(example)
    return next(name for limit, name in OBJECT_COUNTS if len(boxes) < limit) if boxes else None


def _gsd(example: Example) -> str | None:
    return None if example.gsd is None else next(name for limit, name in GSD_RANGES if example.gsd < limit)


DIMENSIONS: dict[str, Callable[[Example], str | None]] = {
    "object size": _size,
    "objects": _count,
    "sensor": lambda example: example.sensor,
    "ground sampling distance": _gsd,
    "dataset": lambda example: example.dataset,
}
