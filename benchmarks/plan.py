"""Accuracy of predicted step times against the real loop, and plans for 8, 64 and 512 GPUs.

``python -m benchmarks.plan [--rates BENCH.json] [--recipe demo] [--json OUT] [section.key=value ...]`` compares the
step time that is predicted from the components' rates in the JSON of `benchmarks.throughput` with that of the loop
measured with them. It then runs the recipe for a few steps on-policy and pipelined, and compares their step times with
those predicted from the records of the on-policy run. ``--smoke`` leaves these runs out and starts no engine. The plans
treat each measured engine and learner as one GPU; the batch size is proportional to the number of GPUs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Figure, parser, publish
from geovlm_ray.core.files import read_object, read_objects
from geovlm_ray.training.plan.planner import plans, predict
from geovlm_ray.training.plan.rates import Rates, read_rates

STEPS = 12
STALENESS = (0, 1)
GPUS = (8, 64, 512)
COMPONENTS = Path(__file__).parent / "results" / "throughput.json"


def main() -> int:
    """Predict, run, compare and publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rates", type=Path, default=COMPONENTS, help="JSON of benchmarks.throughput")
    arguments.add_argument("--recipe", default="demo", help="recipe or YAML file (default: demo)")
    arguments.add_argument("--runs", type=Path, help="folder of the runs; finished runs in it are reused")
    arguments.add_argument("overrides", nargs="*", metavar="section.key=value")
    options = arguments.parse_args()
    rates = read_rates(options.rates)
    figures = components_against_loop(rates, read_object(options.rates)["rates"]["loop"])
    if not options.smoke:
        with tempfile.TemporaryDirectory(prefix="geovlm-plan-") as folder:
            runs = [run(options.recipe, options.overrides, options.runs or Path(folder), k) for k in STALENESS]
            figures += run_against_runs(runs)
    tables = {str(gpus): table(rates, gpus) for gpus in GPUS}
    more = {"recipe": options.recipe, "overrides": options.overrides}
    measured = rates.model_dump(exclude={"completion_tokens"})
    return publish("plan", figures, options, **more, rates=measured, tables=tables)


def components_against_loop(rates: Rates, loop: dict[str, Any]) -> list[Figure]:
    """The step time of the loop measured with the rates, and its ratio to the one predicted from them."""
    name = f"components, staleness {rates.max_staleness}"
    return [
        Figure(f"{name}: measured step, seconds", loop["step_s"]),
        Figure(f"{name}: predicted from the components / measured", predict(rates, rates).step_s / loop["step_s"]),
    ]


def run(recipe: str, overrides: list[str], folder: Path, staleness: int) -> Path:
    """Train for a few steps on Ray and return the run directory."""
    name = f"staleness-{staleness}"
    settings = [f"run.dir={folder}", f"run.name={name}", f"run.steps={STEPS}", f"loop.max_staleness={staleness}"]
    command = Path(sys.executable).with_name("geovlm-ray")
    subprocess.run([str(command), "train", recipe, *overrides, *settings, "evaluation.num_examples=0"], check=True)
    return folder / name


def run_against_runs(runs: list[Path]) -> list[Figure]:
    """For runs that differ in `STALENESS`: step time, its spread, and the prediction from the on-policy run."""
    rates = read_rates(runs[0])
    figures = []
    for staleness, folder in zip(STALENESS, runs, strict=True):
        rows = read_objects(folder / "metrics.jsonl")[1 + staleness :]
        low, median, high = np.quantile([row["seconds/step"] for row in rows], (0.25, 0.5, 0.75))
        predicted = predict(rates, rates.model_copy(update={"max_staleness": staleness})).step_s
        name = f"run, staleness {staleness}"
        figures += [
            Figure(f"{name}: measured step, median seconds", float(median)),
            Figure(f"{name}: measured step, quartile distance / median", float((high - low) / median)),
            Figure(f"{name}: predicted from the run on-policy / measured", float(predicted / median)),
        ]
    return figures


def table(rates: Rates, gpus: int) -> list[dict[str, Any]]:
    """Plans for a number of GPUs with the measured number of prompts per GPU."""
    prompts = rates.prompts_per_step * gpus // (rates.rollout_actors + rates.learner_gpus)
    return [plan.model_dump() for plan in plans(rates, gpus, prompts_per_step=prompts)]


if __name__ == "__main__":
    sys.exit(main())
