"""Group-normalised advantages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EPSILON = 1e-6


def group_advantages(rewards: Sequence[float]) -> np.ndarray:
    """``(R - mean) / std`` within one group, [G]; all zero where all rewards are equal.

    GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1) as in GeoVLM-R1, with the population's deviation.
    """
    values = np.asarray(rewards, dtype=np.float64)
    deviation = values.std()
    if deviation < EPSILON:
        return np.zeros_like(values)
    return (values - values.mean()) / (deviation + EPSILON)
