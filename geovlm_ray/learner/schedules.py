"""Learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

Decay = Literal["constant", "linear", "cosine"]


def schedule(decay: Decay, warmup_steps: int, total_steps: int, end: float) -> Callable[[int], float]:
    """Factor of the peak learning rate at a step, counted from 0.

    The factor rises linearly and is 1 for the first time at step ``max(warmup_steps, 1)`` (counted from 1), then decays
    to ``end`` at the last step, linearly or as half a cosine; ``constant`` stays at 1.
    """
    peak = max(warmup_steps, 1) - 1
    decay_steps = max(total_steps - 1 - peak, 1)

    def factor(step: int) -> float:
        if step < peak:
            return (step + 1) / (peak + 1)
        progress = min(1.0, (step - peak) / decay_steps)
        if decay == "constant":
            return 1.0
        if decay == "cosine":
            progress = (1 - math.cos(math.pi * progress)) / 2
        return 1.0 - (1.0 - end) * progress

    return factor
