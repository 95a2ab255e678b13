"""The training loop against TRL's GRPOTrainer: samples/s on the same two cores.

``python -m benchmarks.versus_trl [--json OUT]`` (about 15 minutes) needs TRL, which is not a dependency of the package:
``.venv/bin/uv pip install trl==1.16.0`` (the extra ``bench``) installs it without changing pinned packages.

Same for both: model, prompts, images, group size, number and length of completions (EOS is never sampled), a reward of
negligible cost, GRPO loss without KL, AdamW on all weights in fp32, one optimizer step per batch. geovlm_ray's rates
include weight sync and parity check. Each side is a separate process; they are interleaved, so that each has both
cores. Neither writes logs or checkpoints.

TRL runs in one process with two threads, without activation checkpointing, with its fastest micro-batch size. It
generates with transformers' ``generate``: its continuous batching does not support multimodal models, and its vLLM
modes need a GPU (the server mode transfers weights over NCCL; the colocated mode uses ``load_weights``, which vLLM's
CPU build rejects once a model is loaded).
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
from benchmarks.common import ROUNDS, Figure, at_least, in_turns, parser, publish, ratio_figures
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
    """A model and its settings; ``rows`` is TRL's micro-batch size, ``limit`` the minimum ratio to TRL's rate."""

    name: str
    model: Callable[[Path], Path]
    overrides: tuple[str, ...]
    rows: int
    limit: float


CASES = (
    Workload(
        "448 x 448, 46 million weights",
        mid_model,
        # The default parity check has four prompts, more than this batch.
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
    """Measure all cases and publish."""
    options = parser(__doc__ or "").parse_args()
    if importlib.util.find_spec("trl") is None:
        sys.exit("benchmarks.versus_trl needs TRL: .venv/bin/uv pip install trl==1.16.0")
    figures: list[Figure] = []
    measured = {}
    for case in CASES[-1:] if options.smoke else CASES:
        with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as folder:
            rates = measure(case, Path(folder), 1 if options.smoke else ROUNDS)
        figures += case_figures(case, rates)
        measured[case.name] = {"overrides": [*BOTH, *case.overrides], "TRL rows": case.rows, "samples_per_s": rates}
    return publish("versus_trl", figures, options, recipe=RECIPE, cases=measured)


def measure(case: Workload, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Samples/s of TRL and of geovlm_ray with each of the settings, by round."""
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
        print(f"{case.name}: measuring ...", flush=True)
        contenders = {name: partial(ours[own].measure, staleness) for name, (own, staleness) in SETTINGS.items()}
        return in_turns({TRL: partial(theirs.measure, "step"), **contenders}, rounds)


def case_figures(case: Workload, rates: dict[str, list[float]]) -> list[Figure]:
    """Rates and their ratios to TRL's; the limit applies to the fastest of geovlm_ray's settings."""
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    best = max(SETTINGS, key=medians.__getitem__)
    figures = [Figure(f"{case.name}: {name}, samples/s", median) for name, median in medians.items()]
    for name in SETTINGS:
        limit = partial(at_least, limit=case.limit) if name == best else Figure
        figures += ratio_figures(f"{case.name}: {name} / {TRL}", rates[name], rates[TRL], limit)
    return figures


if __name__ == "__main__":
    sys.exit(main())
