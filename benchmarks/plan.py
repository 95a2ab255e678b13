"""Accuracy of the loop simulator against the real loop, and its predictions for 8, 64 and 512 GPUs.

``python -m benchmarks.plan [--recipe demo] [--json OUT] [section.key=value ...]`` runs the recipe for a few steps
on-policy and pipelined, measures the components alone, and compares the measured step times with simulated ones, based
on the components alone and on the records of the on-policy run. The tables for more GPUs treat the measured engine and
learner as one GPU each; the batch size is proportional to the number of GPUs.
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
from geovlm_ray.training.plan.rates import Rates, rates_from_run, rates_from_values
from geovlm_ray.training.plan.simulate import Assumed, Setup, simulate
from geovlm_ray.training.preflight import prepare

STEPS, SMOKE_STEPS = 12, 3
STALENESS = (0, 1)
GPUS = (8, 64, 512)
SYNCS = ((0, False), (1, False), (1, True), (2, True))
"""Staleness, and whether weights are synchronized in flight."""


def main() -> int:
    """Run, measure, simulate, compare and publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--recipe", default="demo", help="recipe or YAML file (default: demo)")
    arguments.add_argument("--runs", type=Path, help="folder of the runs; finished runs in it are reused")
    arguments.add_argument("overrides", nargs="*", metavar="section.key=value")
    options = arguments.parse_args()
    silence_third_party_logs()
    with tempfile.TemporaryDirectory(prefix="geovlm-plan-") as folder:
        steps = SMOKE_STEPS if options.smoke else STEPS
        runs = [run(options.recipe, options.overrides, options.runs or Path(folder), k, steps) for k in STALENESS]
        recorded = rates_from_run(runs[0])
        loops = [read_objects(folder / "metrics.jsonl") for folder in runs]
    alone = parts_alone(options.recipe, options.overrides, loops[0])
    figures = []
    for k, loop in zip(STALENESS, loops, strict=True):
        figures += agreement(k, loop, {"parts alone": alone, "run on-policy": recorded})
    gpu_counts = GPUS[:1] if options.smoke else GPUS
    tables = {str(gpus): table(alone, gpus) for gpus in gpu_counts}
    seconds = max(row["simulation_s"] for row in tables[str(gpu_counts[-1])])
    figures.append(Figure(f"slowest simulation of {gpu_counts[-1]} GPUs, 50 steps, seconds", seconds))
    more = {"recipe": options.recipe, "overrides": options.overrides, "assumed": Assumed().model_dump()}
    rates = alone.model_dump(exclude={"completion_tokens"})
    return publish("plan", figures, options, **more, rates=rates, tables=tables)


def run(recipe: str, overrides: list[str], folder: Path, staleness: int, steps: int) -> Path:
    """Train for a few steps on Ray and return the run directory."""
    name = f"staleness-{staleness}"
    settings = [f"run.dir={folder}", f"run.name={name}", f"run.steps={steps}", f"loop.max_staleness={staleness}"]
    command = Path(sys.executable).with_name("geovlm-ray")
    subprocess.run([str(command), "train", recipe, *overrides, *settings, "evaluation.num_examples=0"], check=True)
    return folder / name


def parts_alone(recipe: str, overrides: list[str], loop: list[dict[str, Any]]) -> Rates:
    """Rates of engine, learner, rewards and sync in this process, and the driver's overhead in the loop."""
    config = load_config(recipe, [*overrides, "loop.max_staleness=0"])
    ready = prepare(config)
    prompts = PromptSampler(ready.stream, config.data, config.rollout.prompts_per_step)
    engine, learner = make_engine(config, ready.model), make_learner(config, ready.model)
    values = measure(config, engine, learner, (prompts.batch(i) for i in itertools.count()), loop)
    return rates_from_values(values, "measured rates")


def agreement(staleness: int, loop: list[dict[str, Any]], sources: dict[str, Rates]) -> list[Figure]:
    """The measured step time, its spread, and its ratio to the step time simulated from each source of rates."""
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
    """Simulation of the best split of the GPUs, with the measured number of prompts per GPU."""
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
