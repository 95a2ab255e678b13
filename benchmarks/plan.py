"""Does the simulator of the loop agree with the loop, and what does it say of 8, 64 and 512 GPUs?

``python -m benchmarks.plan [--recipe demo] [--json OUT] [section.key=value ...]`` runs the recipe for a few steps
on-policy and again with one batch ahead, measures the parts alone, and compares the measured steps with the
simulated ones: from the parts alone, and from the records of the on-policy run. The tables for more GPUs take the
measured engine and learner for one GPU each; the batch grows with the GPUs.
"""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Figure, parser, publish
from benchmarks.rates import measure
from geovlm_ray.config import load_config
from geovlm_ray.core.files import read_objects
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.data.sampler import PromptSampler
from geovlm_ray.training.local import make_engine, make_learner
from geovlm_ray.training.plan.planner import best_split
from geovlm_ray.training.plan.rates import Rates, of_run, of_values
from geovlm_ray.training.plan.simulate import Assumed, Setup, simulate
from geovlm_ray.training.preflight import prepare

STEPS = 12
STALENESS = (0, 1)
GPUS = (8, 64, 512)
SYNCS = ((0, False), (1, False), (1, True), (2, True))
"""Staleness and whether weights are taken in flight."""


def main() -> int:
    """Run, measure, compare, simulate, publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--recipe", default="demo", help="recipe or YAML file (default: demo)")
    arguments.add_argument("--runs", type=Path, help="where the runs go; those that are there already are not run anew")
    arguments.add_argument("overrides", nargs="*", metavar="section.key=value")
    options = arguments.parse_args()
    silence_third_party_logs()
    with tempfile.TemporaryDirectory(prefix="geovlm-plan-") as folder:
        runs = [run(options.recipe, options.overrides, options.runs or Path(folder), k) for k in STALENESS]
        recorded = of_run(runs[0])
        loops = [read_objects(folder / "metrics.jsonl") for folder in runs]
    alone = parts_alone(options.recipe, options.overrides, loops[0])
    figures = []
    for k, loop in zip(STALENESS, loops, strict=True):
        figures += agreement(k, loop, {"parts alone": alone, "run on-policy": recorded})
    tables = {str(gpus): table(alone, gpus) for gpus in GPUS}
    seconds = max(row["simulation_s"] for row in tables[str(GPUS[-1])])
    figures.append(Figure(f"slowest simulation of {GPUS[-1]} GPUs, 50 steps, seconds", seconds))
    more = {"recipe": options.recipe, "overrides": options.overrides, "assumed": Assumed().model_dump()}
    rates = alone.model_dump(exclude={"completion_tokens"})
    return publish("plan", figures, options.json, **more, rates=rates, tables=tables)


def run(recipe: str, overrides: list[str], folder: Path, staleness: int) -> Path:
    """Train for a few steps on Ray; returns the run's directory."""
    name = f"staleness-{staleness}"
    settings = [f"run.dir={folder}", f"run.name={name}", f"run.steps={STEPS}", f"loop.max_staleness={staleness}"]
    command = Path(sys.executable).with_name("geovlm-ray")
    subprocess.run([str(command), "train", recipe, *overrides, *settings, "evaluation.num_examples=0"], check=True)
    return folder / name


def parts_alone(recipe: str, overrides: list[str], loop: list[dict[str, Any]]) -> Rates:
    """Rates of engine, learner, rewards and sync in this process, and of the driver in the loop."""
    config = load_config(recipe, [*overrides, "loop.max_staleness=0"])
    ready = prepare(config)
    prompts = PromptSampler(ready.stream, config.data, config.rollout.prompts_per_step)
    engine, learner = make_engine(config, ready.model), make_learner(config, ready.model)
    values = measure(config, engine, learner, (prompts.batch(i) for i in itertools.count()), loop)
    return of_values(values, "measured rates")


def agreement(staleness: int, loop: list[dict[str, Any]], sources: dict[str, Rates]) -> list[Figure]:
    """The measured step, its spread, and the simulated one from each kind of rates against it."""
    steps = np.array([row["seconds/step"] for row in loop[1 + staleness :]])
    name = f"staleness {staleness}"
    figures = [
        Figure(f"{name}: measured step, median seconds", float(np.median(steps))),
        Figure(f"{name}: measured step, quartile distance / median", _quartile_distance(steps)),
    ]
    for source, rates in sources.items():
        setup = Setup(
            rates.rollout_actors,
            rates.learner_gpus,
            rates.prompts_per_step,
            rates.group_size,
            staleness,
            rates.reward_actors,
        )
        ratio = simulate(rates, setup).step_s / float(np.median(steps))
        figures.append(Figure(f"{name}: simulated from the {source} / measured", ratio))
    return figures


def table(rates: Rates, gpus: int) -> list[dict[str, Any]]:
    """What the simulation says of the best split of the GPUs, with as many prompts a GPU as were measured."""
    measured = rates.rollout_actors + rates.learner_gpus
    prompts = rates.prompts_per_step * gpus // measured
    scorers = max(1, rates.reward_actors * gpus // measured)
    rows = []
    for staleness, in_flight in SYNCS:
        shape = Setup(gpus - 1, 1, prompts, rates.group_size, staleness, scorers, in_flight)
        setup = best_split(rates, shape, Assumed())[1]
        begun = time.perf_counter()
        result = simulate(rates, setup)
        rows.append(
            {
                **dataclasses.asdict(setup),
                "steps_per_s": 1 / result.step_s,
                "samples_per_s": result.samples_per_s,
                "idle": result.idle,
                "staleness": result.staleness,
                "simulation_s": time.perf_counter() - begun,
            }
        )
    return rows


def _quartile_distance(values: np.ndarray) -> float:
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return float((high - low) / middle)


if __name__ == "__main__":
    sys.exit(main())
