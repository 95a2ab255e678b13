"""Calibration: how far confidence and score differ (Guo et al., 2017, "On Calibration of Modern Neural Networks").

Confidence is what a response states, else the mean probability of the tokens of its answer. Scores in [0, 1] take the
place of right and wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geovlm_ray.evaluation.metrics.bootstrap import Statistic

BINS = 10
"""Bins of equal width of the confidence."""


def expected_calibration_error(confidences: Sequence[float], scores: Sequence[float]) -> Statistic:
    """ECE: the mean over records of the difference of mean confidence and mean score in their bin (eq. 3)."""
    chosen = _bin_of(confidences)
    columns = np.stack([np.asarray(confidences) - np.asarray(scores), np.ones(len(scores))], axis=1)

    def error(counts: np.ndarray) -> dict[str, float]:
        totals = np.zeros((BINS, 2))
        np.add.at(totals, chosen, columns * counts[:, None])
        return {"ECE": float(np.abs(totals[:, 0]).sum() / totals[:, 1].sum())}

    return error


def reliability(confidences: Sequence[float], scores: Sequence[float]) -> list[dict[str, float]]:
    """Number of records, mean confidence and mean score of each bin with records."""
    chosen, values = _bin_of(confidences), np.stack([confidences, scores], axis=1)
    bins = [values[chosen == k] for k in range(BINS)]
    return [{"n": len(rows), **dict(zip(("confidence", "score"), rows.mean(axis=0).tolist(), strict=True))}
            for rows in bins if len(rows)]  # fmt: skip


def _bin_of(confidences: Sequence[float]) -> np.ndarray:
    return (np.asarray(confidences, dtype=np.float64) * BINS).astype(np.int64).clip(0, BINS - 1)
