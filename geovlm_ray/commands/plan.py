"""``geovlm-ray plan``: GPU splits between rollout engines and learner, with simulated throughput."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.core.files import write_atomically
from geovlm_ray.training.plan.planner import SETTINGS, Plan, plans
from geovlm_ray.training.plan.rates import Rates, read_rates
from geovlm_ray.training.plan.simulate import Assumed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("rates", type=Path, help="JSON of benchmarks.throughput, or a run directory")
    parser.add_argument("--gpus", type=int, required=True, help="total number of GPUs")
    parser.add_argument("--keep", nargs="+", choices=SETTINGS, default=[], help="settings to keep as measured")
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulated completion lengths (default: 0)")
    parser.add_argument("--json", type=Path, help="output of the plans as JSON")
    assumptions = parser.add_argument_group("assumptions")
    for name, field in Assumed.model_fields.items():
        option = f"--{name.replace('_', '-')}"
        text = f"{field.description} (default: {field.default})"
        assumptions.add_argument(option, default=field.default, help=text)


def run(args: argparse.Namespace) -> int:
    """Search for plans, print them and write them as JSON."""
    if args.json and not args.json.parent.is_dir():
        raise DataError(f"--json {args.json}: expected an existing folder, found no {args.json.parent}")
    assumed = _assumed(args)
    rates = read_rates(args.rates)
    ranked = plans(rates, args.gpus, assumed, keep=args.keep, seed=args.seed)
    console = Console()
    print_plans(ranked, args.gpus, console)
    for line in describe_inputs(rates, assumed, args.rates):
        console.print(line, markup=False, highlight=False)
    if args.json:
        content = {
            "gpus": args.gpus,
            "rates": rates.model_dump(exclude={"completion_tokens"}),
            "assumed": assumed.model_dump(),
            "plans": [as_json(plan) for plan in ranked],
        }
        write_atomically(args.json, json.dumps(content, indent=2) + "\n")
    return 0


def print_plans(ranked: list[Plan], gpus: int, console: Console) -> None:
    """Print one line per plan, and the overrides of the best one."""
    names = ("R + L", "prompts x G", "stale", "sync", "samples/s", "step, s", "idle R, L, all")
    widths = (14, 13, 10, 11, 11, 9, 17)
    lines = [
        f"Plans for {gpus} GPU{'s' if gpus > 1 else ''}, best first: R rollout engines + L learner GPUs, or colocated",
        _line(names, widths),
    ]
    for plan in ranked:
        result, setup = plan.result, plan.result.setup
        cells = (
            f"{setup.gpus} colocated" if setup.colocated else f"{setup.rollout_actors} + {setup.learner_gpus}",
            f"{setup.prompts_per_step} x {setup.group_size}",
            f"{_mean_staleness(result.staleness):.1f} <= {setup.max_staleness}",
            "in flight" if setup.in_flight else "drained",
            f"{result.samples_per_s:,.0f}" if result.samples_per_s >= 100 else f"{result.samples_per_s:.3g}",
            f"{result.step_s:.3g}",
            "".join(f"{result.idle[kind]:5.0%}" for kind in ("rollout", "learner", "gpu")),
        )
        lines.append(_line(cells, widths))
    lines.append(f"Overrides of the best plan: {' '.join(ranked[0].overrides)}")
    if any(plan.result.setup.learner_gpus > 1 for plan in ranked):
        lines.append("The overrides leave multi-GPU or colocated placement of the learner to you.")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def describe_inputs(rates: Rates, assumed: Assumed, source: Path) -> list[str]:
    """Describe the measured rates, missing measurements and assumptions behind the plans."""
    return [
        f"Measured ({source}): rollout, reward, learner and sync; engines: {rates.rollout_actors}, reward actors: "
        f"{rates.reward_actors}, learner GPUs: {rates.learner_gpus}, prompts per step: {rates.prompts_per_step}, G: "
        f"{rates.group_size}, staleness: {rates.max_staleness}, sync: {'in flight' if rates.in_flight else 'drained'}, "
        f"tokens per completion: {rates.mean_tokens:.0f}.",
        *(f"Not measured: {gap}." for gap in rates.unmeasured),
        f"Assumed: learner efficiency is {assumed.learner_efficiency:.0%} per doubling of its GPUs; weight sync takes "
        f"{assumed.sync_growth:.0%} of the measured time longer per doubling of the engines; colocated engines and "
        f"learner switch twice per step, in {assumed.switch_s:g} s each; an engine generates at most "
        f"{assumed.sequences} completions concurrently; completion lengths do not depend on batch size or G; "
        "everything fits into memory.",
    ]


def as_json(plan: Plan) -> dict:
    """A plan for the JSON output, without per-group data."""
    result = plan.result
    return {
        "setup": dataclasses.asdict(result.setup),
        "samples_per_s": result.samples_per_s,
        "step_s": result.step_s,
        "idle": result.idle,
        "staleness": result.staleness,
        "overrides": list(plan.overrides),
    }


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def _mean_staleness(staleness: dict[int, int]) -> float:
    return sum(age * count for age, count in staleness.items()) / sum(staleness.values())


def _assumed(args: argparse.Namespace) -> Assumed:
    try:
        return Assumed.model_validate({name: getattr(args, name) for name in Assumed.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{str(first['loc'][0]).replace('_', '-')}"
        expected = first["msg"].removeprefix("Input should be ")
        raise ConfigError(f"{option}: expected {expected}, found {first['input']!r}") from error
