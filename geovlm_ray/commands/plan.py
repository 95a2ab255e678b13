"""``geovlm-ray plan``: GPU splits between rollout engines and learner, with predicted throughput."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from geovlm_ray.core.files import write_atomically
from geovlm_ray.report.terminal import open_console
from geovlm_ray.training.plan.planner import Assumed, Prediction, plans
from geovlm_ray.training.plan.rates import Rates, Setup, read_rates


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("rates", type=Path, help="JSON of benchmarks.throughput, or a run directory")
    parser.add_argument("--gpus", type=int, required=True, help="total number of GPUs")
    parser.add_argument("--prompts-per-step", type=int, help="batch size of the plans (default: as measured)")
    parser.add_argument("--json", type=Path, help="output of the plans as JSON")
    efficiency = "assumed fraction of per-GPU learner speed kept at each doubling of its GPUs (default: %(default)s)"
    parser.add_argument("--learner-efficiency", type=float, default=Assumed().learner_efficiency, help=efficiency)
    growth = "assumed relative increase of sync time at each doubling of the engines (default: %(default)s)"
    parser.add_argument("--sync-growth", type=float, default=Assumed().sync_growth, help=growth)


def run(args: argparse.Namespace) -> int:
    """Search for plans, print them and write them as JSON."""
    assumed = Assumed(learner_efficiency=args.learner_efficiency, sync_growth=args.sync_growth)
    rates = read_rates(args.rates)
    ranked = plans(rates, args.gpus, assumed, args.prompts_per_step)
    console = open_console()
    for line in (*describe_plans(ranked), *describe_inputs(rates, assumed, args.rates)):
        console.print(line)
    if args.json:
        measured = rates.model_dump(exclude={"completion_tokens"})
        planned = [{**plan.model_dump(), "overrides": plan.setup.overrides} for plan in ranked]
        content = {"gpus": args.gpus, "rates": measured, "assumed": assumed.model_dump(), "plans": planned}
        write_atomically(args.json, json.dumps(content, indent=2) + "\n")
    return 0


def describe_plans(ranked: list[Prediction]) -> list[str]:
    """One line per plan, and the overrides of the best one."""
    best = ranked[0].setup
    lines = [
        f"Plans for {best.rollout_actors + best.learner_gpus} GPUs and {best.prompts_per_step} x {best.group_size} "
        "completions, best first (within 5%: least stale): R rollout engines + L learner GPUs",
        f"{'R + L':>14}{'staleness':>11}{'sync':>11}{'samples/s':>11}{'step, s':>9}{'idle R, L, all':>17}",
    ]
    for plan in ranked:
        split = f"{plan.setup.rollout_actors} + {plan.setup.learner_gpus}"
        sync = "in flight" if plan.setup.in_flight else "drained"
        speed = f"{plan.samples_per_s:,.0f}" if plan.samples_per_s >= 100 else f"{plan.samples_per_s:.3g}"
        idle = "".join(f"{plan.idle[kind]:5.0%}" for kind in ("rollout", "learner", "gpu"))
        lines.append(f"{split:>14}{plan.setup.max_staleness:>11}{sync:>11}{speed:>11}{plan.step_s:>9.3g}{idle:>17}")
    return [*lines, f"Overrides of the best plan: {' '.join(best.overrides)}"]


def describe_inputs(rates: Rates, assumed: Assumed, source: Path) -> list[str]:
    """Describe the measured rates, missing measurements, assumptions and extrapolations behind the plans."""
    setup = ", ".join(f"{name}={getattr(rates, name)}" for name in Setup.model_fields)
    return [
        f"Measured ({source}): rollout, reward, learner and sync, {rates.lengths.mean:.0f} tokens per completion, with "
        f"{setup}.",
        *(f"Not measured: {gap}." for gap in rates.unmeasured),
        f"Assumed: learner efficiency is {assumed.learner_efficiency:.0%} per doubling of its GPUs; weight sync takes "
        f"{assumed.sync_growth:.0%} of the measured time longer per doubling of the engines.",
        "Extrapolated: all plans but the measured setup, with costs linear in prompts, iterations and tokens, lengths "
        "that do not depend on the batch size, enough memory, and engines and learner that do not share cores.",
    ]
