"""Learning-rate schedules reach the peak and the end that the settings name."""

from __future__ import annotations

import math

import pytest

from geovlm_ray.learner.schedules import Decay, schedule


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(("warmup", "steps"), [(0, 10), (1, 10), (5, 10), (3, 100), (10, 10), (0, 1), (50, 10)])
def test_peak_and_end_are_exact(decay: Decay, warmup: int, steps: int) -> None:
    factors = [schedule(decay, warmup, steps, end=0.1)(step) for step in range(steps)]
    if warmup <= steps:
        assert factors[max(warmup, 1) - 1] == max(factors) == 1
    if decay != "constant" and max(warmup, 1) < steps:
        assert factors[-1] == pytest.approx(0.1)
    assert factors[: max(warmup, 1)] == pytest.approx(
        [(s + 1) / max(warmup, 1) for s in range(min(max(warmup, 1), steps))]
    )


def test_decays_have_their_shape() -> None:
    steps, end = 101, 0.2
    linear, cosine = (schedule(decay, 0, steps, end) for decay in ("linear", "cosine"))
    for step in range(steps):
        assert linear(step) == pytest.approx(1 - 0.8 * step / 100)
        assert cosine(step) == pytest.approx(end + 0.8 * (1 + math.cos(math.pi * step / 100)) / 2)
    assert schedule("linear", 0, steps, end)(steps + 10) == pytest.approx(end)
