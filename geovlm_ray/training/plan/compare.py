"""A run that is over, against what its loop was expected to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from geovlm_ray.training.plan.rates import Rates, column, settled
from geovlm_ray.training.plan.simulate import Setup, simulate


def measured_idle(rates: Rates, setup: Setup, rows: Sequence[dict[str, Any]], where: str) -> dict[str, float]:
    """Shares of the time in which engines, rewards and learner did none of their own work, from a run's metrics.

    The metrics do not say for how long rewards were made, nor, where batches are drawn ahead, completions: these then
    took what the run's completions and tokens cost at the given rates. The first step is left out.

    Raises:
        DataError: a row lacks a metric.
    """
    rows = settled(rows, where)
    parts = ("parity", "rollout", "learner", "step")
    seconds = {part: float(column(rows, f"seconds/{part}", where).sum()) for part in parts}
    # The draw goes on beside the parity check.
    seconds["rollout"] += seconds["parity"]
    completions = len(rows) * setup.prompts_per_step * setup.group_size
    seconds["reward"] = completions * rates.reward_s_per_completion / setup.reward_actors
    if setup.max_staleness:
        tokens = float(column(rows, "rollout/tokens", where).sum())
        prompts = setup.prompts_per_step * len(rows)
        work = prompts * rates.prefill_s_per_prompt + tokens * rates.decode_s_per_token
        longest = len(rows) * max(max(group) for group in rates.completion_tokens)
        seconds["rollout"] = work / setup.rollout_actors + longest * rates.decode_s_per_step
    return {part: max(0.0, 1 - seconds[part] / seconds["step"]) for part in ("rollout", "reward", "learner")}


def compare(rates: Rates, setup: Setup, rows: Sequence[dict[str, Any]], where: str) -> str:
    """A table of a run's measured step and idle shares beside those that the simulation of its loop gives.

    ``rows`` are the run's metrics, of which the first step is left out; errors begin with ``where``.

    Raises:
        DataError: the metrics lack a number, or have fewer than 2 steps.
    """
    planned = simulate(rates, setup)
    measured = float(column(settled(rows, where), "seconds/step", where).mean())
    idle = measured_idle(rates, setup, rows, where)
    lines = [
        f"{'':<16}{'measured':>10}{'planned':>10}",
        f"{'step, s':<16}{measured:>10.3g}{planned.step_s:>10.3g}   planned / measured {planned.step_s / measured:.2f}",
    ]
    for part, share in idle.items():
        note = "   measured: by the rates" if part == "reward" or (part == "rollout" and setup.max_staleness) else ""
        lines.append(f"{part + ' idle':<16}{share:>10.0%}{planned.idle[part]:>10.0%}{note}")
    return "\n".join(lines)
