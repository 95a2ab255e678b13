"""Where a model is good and where not: the mean score by object size, number of objects, sensor and resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from geovlm_ray.core.schema import Example
from geovlm_ray.evaluation.metrics.bootstrap import Interval, intervals, means
from geovlm_ray.evaluation.metrics.detection import size_group
from geovlm_ray.evaluation.metrics.sound import true_boxes

COUNTS = ((2, "1"), (5, "2 to 4"), (10, "5 to 9"), (np.inf, "10 or more"))
DISTANCES = ((1.0, "below 1 m"), (5.0, "1 to 5 m"), (15.0, "5 to 15 m"), (np.inf, "15 m or more"))
DRAWS = 1000


@dataclass(frozen=True)
class Slice:
    """The score of n records."""

    n: int
    score: Interval


def sliced(examples: Sequence[Example], scores: Sequence[float], groups: Sequence[str | None]) -> dict:
    """Mean score with its interval, ``{dimension: {value: Slice}}``.

    Dimensions that no record has, and those in which all records are alike, are left out. ``groups`` is what the
    dataset files each record under.
    """
    values = np.asarray(scores, dtype=np.float64)
    found: dict[str, dict[str, Slice]] = {}
    for dimension, kind_of in DIMENSIONS.items():
        kinds = np.array([kind_of(example) or "" for example in examples])
        found |= _split(dimension, kinds, values)
    return found | _split("type", np.array([group or "" for group in groups]), values)


def _split(dimension: str, kinds: np.ndarray, scores: np.ndarray) -> dict[str, dict[str, Slice]]:
    names = [str(kind) for kind in dict.fromkeys(kinds.tolist()) if kind]
    if len(names) < 2:
        return {}
    return {dimension: {name: score_slice(scores[kinds == name]) for name in sorted(names)}}


def score_slice(scores: np.ndarray) -> Slice:
    """The mean of scores [n], n above 0, with its bootstrap interval."""
    return Slice(len(scores), intervals(means({"score": scores}), len(scores), DRAWS)["score"])


def _size(example: Example) -> str | None:
    return size_group(true_boxes(example), example.frame)


def _count(example: Example) -> str | None:
    boxes = true_boxes(example)
    return next(name for limit, name in COUNTS if len(boxes) < limit) if boxes else None


def _distance(example: Example) -> str | None:
    return None if example.gsd is None else next(name for limit, name in DISTANCES if example.gsd < limit)


DIMENSIONS: dict[str, Callable[[Example], str | None]] = {
    "object size": _size,
    "objects": _count,
    "sensor": lambda example: example.sensor,
    "ground sampling distance": _distance,
    "dataset": lambda example: example.dataset,
}
