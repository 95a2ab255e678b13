"""Mean score by object size, number of objects, sensor, ground sampling distance, dataset and record category."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from geovlm_ray.core.schema import target_boxes
from geovlm_ray.evaluation.metrics.bootstrap import counted_mean
from geovlm_ray.evaluation.metrics.detection import size_group
from geovlm_ray.evaluation.metrics.sound import AnsweredExample

Limits = tuple[tuple[float, str], ...]
OBJECT_COUNTS: Limits = ((2, "1"), (5, "2 to 4"), (10, "5 to 9"), (np.inf, "10 or more"))
GSD_RANGES: Limits = ((1.0, "below 1 m"), (5.0, "1 to 5 m"), (15.0, "5 to 15 m"), (np.inf, "15 m or more"))


def score_slices(records: Sequence[AnsweredExample], scores: Sequence[float]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean scores as {dimension: {slice: {"n", "value", "low", "high"}}}.

    Records without a value are in no slice of a dimension; dimensions with fewer than two values are left out.
    """
    score_array = np.asarray(scores, dtype=np.float64)
    slices = {}
    for dimension, value_of in DIMENSIONS.items():
        values = np.array([value_of(record) or "" for record in records])
        names = sorted(set(values.tolist()) - {""})
        if len(names) > 1:
            slices[dimension] = {name: counted_mean(score_array[values == name]) for name in names}
    return slices


def _range(value: float | None, limits: Limits) -> str | None:
    """Name of the range that contains a value."""
    return None if value is None else next(name for limit, name in limits if value < limit)


DIMENSIONS: dict[str, Callable[[AnsweredExample], str | None]] = {
    "object size": lambda record: size_group(target_boxes(record.example.target), record.example.frame),
    "objects": lambda record: _range(len(target_boxes(record.example.target)) or None, OBJECT_COUNTS),
    "sensor": lambda record: record.example.sensor,
    "ground sampling distance": lambda record: _range(record.example.gsd, GSD_RANGES),
    "dataset": lambda record: record.example.dataset,
    "type": lambda record: record.group,
}
"""Value of a record by dimension; ``type`` is its category in the dataset."""
