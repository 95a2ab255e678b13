"""``geovlm-ray plan``: how to split GPUs between engines and learner, and what to expect of it."""

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
    """Rates, GPUs, what stays as it is, and what is assumed."""
    parser.add_argument("rates", type=Path, help="the JSON of benchmarks.throughput, or the directory of a run")
    parser.add_argument("--gpus", type=int, required=True, help="GPUs to plan for")
    parser.add_argument("--keep", nargs="+", choices=SETTINGS, default=[], help="settings that stay as measured")
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulated lengths (default: 0)")
    parser.add_argument("--json", type=Path, help="where the plans go as JSON")
    assumptions = parser.add_argument_group("assumptions")
    for name, field in Assumed.model_fields.items():
        option = f"--{name.replace('_', '-')}"
        text = f"{field.description} (default: {field.default})"
        assumptions.add_argument(option, default=field.default, help=text)


def run(args: argparse.Namespace) -> int:
    """Read the rates, search, print the plans and write them."""
    if args.json and not args.json.parent.is_dir():
        raise DataError(f"--json {args.json}: expected an existing folder, found no {args.json.parent}")
    assumed = _assumed(args)
    rates = read_rates(args.rates)
    found = plans(rates, args.gpus, assumed, keep=args.keep, seed=args.seed)
    console = Console()
    print_plans(found, args.gpus, console)
    for line in basis(rates, assumed, args.rates):
        console.print(line, markup=False, highlight=False)
    if args.json:
        content = {
            "gpus": args.gpus,
            "rates": rates.model_dump(exclude={"completion_tokens"}),
            "assumed": assumed.model_dump(),
            "plans": [as_json(plan) for plan in found],
        }
        write_atomically(args.json, json.dumps(content, indent=2) + "\n")
    return 0


def print_plans(found: list[Plan], gpus: int, console: Console) -> None:
    """One line a plan, and the settings of the first."""
    names = ("R + L", "prompts x G", "stale", "sync", "samples/s", "step, s", "idle R, L, all")
    widths = (12, 13, 10, 9, 11, 9, 17)
    lines = [
        f"Plans for {gpus} GPU{'s' if gpus > 1 else ''}, best first: R engines + L learner GPUs, or both in turns",
        _line(names, widths),
    ]
    for plan in found:
        result, setup = plan.result, plan.result.setup
        cells = (
            f"{setup.gpus} in turns" if setup.colocated else f"{setup.rollout_actors} + {setup.learner_gpus}",
            f"{setup.prompts_per_step} x {setup.group_size}",
            f"{_mean_age(result.staleness):.1f} <= {setup.max_staleness}",
            "flight" if setup.in_flight else "drained",
            f"{result.samples_per_s:,.0f}" if result.samples_per_s >= 100 else f"{result.samples_per_s:.3g}",
            f"{result.step_s:.3g}",
            "".join(f"{result.idle[kind]:5.0%}" for kind in ("rollout", "learner", "gpu")),
        )
        lines.append(_line(cells, widths))
    lines.append(f"The first: {' '.join(found[0].overrides)}")
    if any(plan.result.setup.learner_gpus > 1 for plan in found):
        lines.append("These settings leave it to you to place a learner on L GPUs, or both in turns.")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def basis(rates: Rates, assumed: Assumed, source: Path) -> list[str]:
    """What of a plan was measured and what was assumed, in sentences."""
    return [
        f"Measured ({source}): rollout, reward, learner and sync; engines: {rates.rollout_actors}, reward actors: "
        f"{rates.reward_actors}, learner GPUs: {rates.learner_gpus}, prompts a step: {rates.prompts_per_step}, G: "
        f"{rates.group_size}, staleness: {rates.max_staleness}, sync: {'in flight' if rates.in_flight else 'drained'}, "
        f"tokens a completion: {rates.mean_tokens:.0f}.",
        *(f"Not measured: {gap}." for gap in rates.unmeasured),
        f"Assumed: the learner keeps {assumed.learner_efficiency:.0%} of its speed at every doubling of its GPUs; a "
        f"sync grows by {assumed.sync_growth:.0%} of what was measured at every doubling of the engines; engines and "
        f"learner on shared GPUs change places in {assumed.switch_s:g} s, twice a step; an engine draws at most "
        f"{assumed.sequences} completions at once; batch and G leave the lengths as they are; all fits into memory.",
    ]


def as_json(plan: Plan) -> dict:
    """A plan without the numbers of its groups."""
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


def _mean_age(staleness: dict[int, int]) -> float:
    return sum(age * count for age, count in staleness.items()) / sum(staleness.values())


def _assumed(args: argparse.Namespace) -> Assumed:
    try:
        return Assumed.model_validate({name: getattr(args, name) for name in Assumed.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{str(first['loc'][0]).replace('_', '-')}"
        expected = first["msg"].removeprefix("Input should be ")
        raise ConfigError(f"{option}: expected {expected}, found {first['input']!r}") from error
