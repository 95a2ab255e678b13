"""Group-relative advantages."""

from __future__ import annotations

import numpy as np

EPSILON = 1e-6


def normalised(rewards: np.ndarray) -> np.ndarray:
    """``(R - mean) / std`` within one group, [G]; all zero if all rewards are equal.

    GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1) as in GeoVLM-R1, with the population standard deviation.
    """
    deviation = rewards.std()
    if deviation < EPSILON:
        return np.zeros_like(rewards)
    return (rewards - rewards.mean()) / (deviation + EPSILON)


def centred(rewards: np.ndarray) -> np.ndarray:
    """``R - mean`` within one group, [G]: without GRPO's difficulty bias (Dr. GRPO, arXiv 2503.20783)."""
    return rewards - rewards.mean()
