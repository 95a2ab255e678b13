"""Accuracy and F1 of class answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from geovlm_ray.evaluation.metrics.bootstrap import Statistic

Names = frozenset[str]


def class_scores(predicted: Sequence[Names], truth: Sequence[Names]) -> Statistic:
    """Accuracy and three means of F1 over sets of class names.

    ``accuracy`` is the share of records whose sets are equal; ``F1 samples`` the mean F1 of a record's sets, 1
    where both are empty; ``F1 micro`` that of all decisions together; ``F1 macro`` the mean over the classes that
    are true somewhere among the counted records.
    """
    pairs = list(zip(predicted, truth, strict=True))
    sizes = np.array([(len(p & t), len(p) + len(t)) for p, t in pairs], dtype=np.float64).reshape(-1, 2)
    exact = np.array([p == t for p, t in pairs], dtype=np.float64)
    samples = np.where(sizes[:, 1] > 0, 2 * sizes[:, 0] / np.maximum(sizes[:, 1], 1), 1.0)
    names = {name: i for i, name in enumerate(sorted(set().union(*truth)))}
    hit, said, wanted = (_indicators(sets, names) for sets in ([p & t for p, t in pairs], predicted, truth))

    def scores(counts: np.ndarray) -> dict[str, float]:
        total = counts.sum()
        if not total:
            return {}
        values = {"accuracy": float(counts @ exact / total), "F1 samples": float(counts @ samples / total)}
        common, listed = counts @ sizes
        if listed:
            values["F1 micro"] = float(2 * common / listed)
        true = counts @ wanted
        if true.any():
            values["F1 macro"] = float((2 * (counts @ hit) / np.maximum(counts @ said + true, 1))[true > 0].mean())
        return values

    return scores


def _indicators(sets: Sequence[Names], names: dict[str, int]) -> csr_array:
    """Which record holds which name, [n, number of names]; other names are left out."""
    cells = [(row, names[name]) for row, held in enumerate(sets) for name in held if name in names]
    rows, columns = np.array(cells, dtype=np.int64).reshape(-1, 2).T
    return csr_array((np.ones(len(cells), dtype=np.int64), (rows, columns)), shape=(len(sets), len(names)))
