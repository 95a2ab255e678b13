"""Comparison of a finished run with its predicted step time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geovlm_ray.training.plan.planner import predict
from geovlm_ray.training.plan.rates import Rates, Setup, columns


def measured_idle(rates: Rates, setup: Setup, measured: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Idle fractions of engines, reward actors and learner, in [0, 1], from the metrics of a run (`columns`).

    Metrics hold no reward time, and no rollout time for ``max_staleness`` > 0: these are predicted from the rates.
    """
    busy = {**predict(rates, setup).busy_s, "learner": measured["learner"].mean()}
    if not setup.max_staleness:
        # Engines generate during the parity check.
        busy["rollout"] = (measured["parity"] + measured["rollout"]).mean()
    return {kind: max(0.0, 1 - float(seconds / measured["step"].mean())) for kind, seconds in busy.items()}


def compare_with_plan(rates: Rates, setup: Setup, rows: Sequence[dict[str, Any]], where: str) -> str:
    """A table of step time and idle fractions of a run, measured and predicted, without its first step.

    Raises:
        DataError: a metric is missing, or there are fewer than 2 steps; the message begins with ``where``.
    """
    measured, planned = columns(rows, where), predict(rates, setup)
    step_s = measured["step"].mean()
    lines = [
        f"{'':<16}{'measured':>10}{'planned':>10}",
        f"{'step, s':<16}{step_s:>10.3g}{planned.step_s:>10.3g}   planned / measured {planned.step_s / step_s:.2f}",
    ]
    for kind, fraction in measured_idle(rates, setup, measured).items():
        note = "   estimated from rates" if kind == "reward" or (kind == "rollout" and setup.max_staleness) else ""
        lines.append(f"{kind + ' idle':<16}{fraction:>10.0%}{planned.idle[kind]:>10.0%}{note}")
    return "\n".join(lines)
