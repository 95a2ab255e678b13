"""Comparison of a finished run with the simulation of its loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from geovlm_ray.training.plan.rates import Rates, column, without_warmup
from geovlm_ray.training.plan.simulate import Setup, simulate


def measured_idle(rates: Rates, setup: Setup, rows: Sequence[dict[str, Any]], where: str) -> dict[str, float]:
    """Idle fractions of engines, reward actors and learner, in [0, 1], from a run's metrics.

    Metrics hold no reward time, and no rollout time for ``max_staleness`` > 0. These are estimated from the run's
    numbers of completions and tokens and the given rates. The first step (warm-up) is excluded.

    Raises:
        DataError: a row lacks a metric.
    """
    rows = without_warmup(rows, where)
    phases = ("parity", "rollout", "learner", "step")
    seconds = {phase: float(column(rows, f"seconds/{phase}", where).sum()) for phase in phases}
    # Engines generate during the parity check.
    seconds["rollout"] += seconds["parity"]
    completions = len(rows) * setup.prompts_per_step * setup.group_size
    seconds["reward"] = completions * rates.reward_s_per_completion / setup.reward_actors
    if setup.max_staleness:
        tokens = float(column(rows, "rollout/tokens", where).sum())
        prompts = setup.prompts_per_step * len(rows)
        work = prompts * rates.prefill_s_per_prompt + tokens * rates.decode_s_per_token
        longest = len(rows) * max(max(group) for group in rates.completion_tokens)
        seconds["rollout"] = work / setup.rollout_actors + longest * rates.decode_s_per_step
    return {kind: max(0.0, 1 - seconds[kind] / seconds["step"]) for kind in ("rollout", "reward", "learner")}


def compare(rates: Rates, setup: Setup, rows: Sequence[dict[str, Any]], where: str) -> str:
    """A table of step time and idle fractions of a run, measured and simulated.

    ``rows`` are the run's metrics, whose first step is excluded; error messages begin with ``where``.

    Raises:
        DataError: a metric is missing, or there are fewer than 2 steps.
    """
    planned = simulate(rates, setup)
    measured = float(column(without_warmup(rows, where), "seconds/step", where).mean())
    idle = measured_idle(rates, setup, rows, where)
    lines = [
        f"{'':<16}{'measured':>10}{'planned':>10}",
        f"{'step, s':<16}{measured:>10.3g}{planned.step_s:>10.3g}   planned / measured {planned.step_s / measured:.2f}",
    ]
    for kind, fraction in idle.items():
        note = "   estimated from rates" if kind == "reward" or (kind == "rollout" and setup.max_staleness) else ""
        lines.append(f"{kind + ' idle':<16}{fraction:>10.0%}{planned.idle[kind]:>10.0%}{note}")
    return "\n".join(lines)
