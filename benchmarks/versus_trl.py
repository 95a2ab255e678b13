"""The whole loop against TRL's GRPOTrainer: samples/s on the same two cores.

``python -m benchmarks.versus_trl [--json OUT]`` (about 15 minutes) needs TRL, which is no dependency of the package:
``.venv/bin/uv pip install trl==1.16.0`` (the extra ``bench``) adds it and leaves all pinned packages as they are.

Same for both: model, prompts, images, G, number and length of the completions (no end of the turn can be drawn), a
reward that costs nothing, GRPO's loss without KL, AdamW on all weights in fp32, one optimizer step a batch. Ours
includes the weight sync and its parity check. A side is a process of its own and they take turns, so that either has
both cores; neither writes logs or checkpoints.

TRL runs in one process with two threads, without checkpointing of activations and in micro-batches of the size that
was fastest. It draws with transformers' ``generate``: its continuous batching refuses multimodal models, and
its vLLM modes want a GPU (the server's transport is NCCL; the engine in the process is given weights by
``load_weights``, which vLLM's CPU build refuses once a model is loaded).
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import versus_ours, versus_theirs
from benchmarks.common import Figure, at_least, in_turns, parser, publish, ratio_figures
from benchmarks.contender import Contender
from benchmarks.random_model import endless, mid_model
from geovlm_ray.model.loading import model_folder

RECIPE = "demo"
TRL = "TRL"
BOTH = ("learner.lr=1.0e-6", "learner.warmup_steps=0")
IN_ONE_PROCESS, ON_RAY = ("learner.threads=2",), ("learner.threads=1",)
SETTINGS = {
    "one process, two threads, staleness 0": (IN_ONE_PROCESS, 0),
    "on Ray, a core each for engine and learner, staleness 0": (ON_RAY, 0),
    "on Ray, a core each for engine and learner, staleness 1": (ON_RAY, 1),
}


@dataclass(frozen=True)
class Workload:
    """A model and its work; ``rows`` are the sequences of TRL's forward pass, ``limit`` the ratio that must be had."""

    name: str
    model: Callable[[Path], Path]
    overrides: tuple[str, ...]
    rows: int
    limit: float


CASES = (
    Workload(
        "448 x 448, 46 million weights",
        mid_model,
        # The parity check of the default has four prompts, more than this batch.
        (
            "prompt.image_size=448",
            "rollout.prompts_per_step=2",
            "rollout.max_model_len=1024",
            "sync.parity_prompts=1",
        ),
        rows=4,
        limit=3,
    ),
    Workload("tiny default", lambda _: model_folder("tiny"), (), rows=64, limit=1.5),
)


def main() -> int:
    """Measure every case and publish."""
    options = parser(__doc__ or "").parse_args()
    if importlib.util.find_spec("trl") is None:
        sys.exit("benchmarks.versus_trl needs TRL: .venv/bin/uv pip install trl==1.16.0")
    figures: list[Figure] = []
    measured = {}
    for case in CASES:
        with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as folder:
            rates = measure(case, Path(folder))
        figures += case_figures(case, rates)
        measured[case.name] = {"overrides": [*BOTH, *case.overrides], "TRL rows": case.rows, "samples_per_s": rates}
    return publish("versus_trl", figures, options.json, recipe=RECIPE, cases=measured)


def measure(case: Workload, folder: Path) -> dict[str, list[float]]:
    """Samples/s of TRL and of each of our settings, by round."""
    model = endless(case.model(folder / "model"), folder / "endless")
    both = [*BOTH, *case.overrides, f"model.path={model}", f"run.dir={folder}"]
    with ExitStack() as stack:

        def start(*arguments: Any) -> Contender:
            contender = Contender(*arguments)
            stack.callback(contender.close)
            return contender

        print(f"{case.name}: starting both sides ...", flush=True)
        ours = {own: start(versus_ours.serve, RECIPE, [*both, *own], own == ON_RAY) for own in (IN_ONE_PROCESS, ON_RAY)}
        theirs = start(versus_theirs.serve, RECIPE, both, case.rows, 2)
        print(f"{case.name}: taking turns ...", flush=True)
        contenders = {name: partial(ours[own].measure, staleness) for name, (own, staleness) in SETTINGS.items()}
        return in_turns({TRL: partial(theirs.measure, "step"), **contenders})


def case_figures(case: Workload, rates: dict[str, list[float]]) -> list[Figure]:
    """Rates, and their ratios to TRL's; the fastest of our settings has to reach the limit."""
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    best = max(SETTINGS, key=medians.__getitem__)
    figures = [Figure(f"{case.name}: {name}, samples/s", median) for name, median in medians.items()]
    for name in SETTINGS:
        limit = partial(at_least, limit=case.limit) if name == best else Figure
        figures += ratio_figures(f"{case.name}: {name} / {TRL}", rates[name], rates[TRL], limit)
    return figures


if __name__ == "__main__":
    sys.exit(main())
