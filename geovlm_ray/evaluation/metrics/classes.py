"""Accuracy and F1 of classification answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from geovlm_ray.evaluation.metrics.bootstrap import Statistic

Names = frozenset[str]


def class_scores(predicted: Sequence[Names], truth: Sequence[Names]) -> Statistic:
    """Subset accuracy and F1 averages over sets of class names.

    ``accuracy`` is the share of records with equal sets; ``F1 samples`` the mean F1 per record, 1 if both sets are
    empty; ``F1 micro`` F1 of the pooled counts; ``F1 macro`` the mean F1 of the classes with at least one true label
    among the counted records.
    """
    pairs = list(zip(predicted, truth, strict=True))
    sizes = np.array([(len(p & t), len(p) + len(t)) for p, t in pairs], dtype=np.float64).reshape(-1, 2)
    exact = np.array([p == t for p, t in pairs], dtype=np.float64)
    samples = np.where(sizes[:, 1] > 0, 2 * sizes[:, 0] / np.maximum(sizes[:, 1], 1), 1.0)
    names = {name: i for i, name in enumerate(sorted(set().union(*truth)))}
    hits, positives, true = (_indicators(sets, names) for sets in ([p & t for p, t in pairs], predicted, truth))

    def scores(counts: np.ndarray) -> dict[str, float]:
        total = counts.sum()
        if not total:
            return {}
        values = {"accuracy": float(counts @ exact / total), "F1 samples": float(counts @ samples / total)}
        hit_count, label_count = counts @ sizes
        if label_count:
            values["F1 micro"] = float(2 * hit_count / label_count)
        support = counts @ true
        if support.any():
            class_f1 = 2 * (counts @ hits) / np.maximum(counts @ positives + support, 1)
            values["F1 macro"] = float(class_f1[support > 0].mean())
        return values

    return scores


def _indicators(sets: Sequence[Names], names: dict[str, int]) -> csr_array:
    """Indicator matrix of names per record, [n, number of names]; unknown names are dropped."""
    cells = [(row, names[name]) for row, record in enumerate(sets) for name in record if name in names]
    rows, columns = np.array(cells, dtype=np.int64).reshape(-1, 2).T
    return csr_array((np.ones(len(cells), dtype=np.int64), (rows, columns)), shape=(len(sets), len(names)))
