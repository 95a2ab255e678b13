"""Overlap of learner and rollout: a pipelined step of the loop against the slower of the two alone.

``python -m benchmarks.overlap [--json OUT] [section.key=value ...]`` (about 5 minutes). The tiny policy on Ray, with
one core each for engine and learner, completions of equal length, and rewards of negligible cost. Measurements are
interleaved. A step of the loop is complete: dispatch, rewards, admission, weight sync and parity check.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.common import Figure, at_most, in_turns, parser, publish, ratio_figures, seconds
from benchmarks.random_model import endless
from benchmarks.versus_ours import Loop
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.model.loading import model_folder

RECIPE = "demo"
SETTINGS = ("rollout.prompts_per_step=64", "learner.lr=1.0e-6", "learner.warmup_steps=0", "learner.threads=1")
SMOKE = ("rollout.prompts_per_step=8",)
ROUNDS = 6
"""Including one warm-up round."""


def main() -> int:
    """Measure and publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("overrides", nargs="*", metavar="section.key=value")
    options = arguments.parse_args()
    silence_third_party_logs()
    settings = [*SETTINGS, *(SMOKE if options.smoke else ()), *options.overrides]
    rounds = 2 if options.smoke else ROUNDS
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as folder:
        model = endless(model_folder("tiny"), Path(folder) / "endless")
        loop = Loop(RECIPE, [*settings, f"model.path={model}", f"run.dir={folder}"], on_ray=True)
        contenders: dict[str, Callable[[], float]] = {
            "rollout alone": partial(rollout_seconds, loop),
            "learner alone": partial(learner_seconds, loop),
            "loop, staleness 1": lambda: loop.samples / loop.samples_per_second(1),
        }
        measured = {name: values[1:] for name, values in in_turns(contenders, rounds).items()}
        loop.close()
    slower = np.maximum(measured["rollout alone"], measured["learner alone"])
    together = np.add(measured["rollout alone"], measured["learner alone"])
    step = measured["loop, staleness 1"]
    figures = [
        *(Figure(f"{name}: seconds of a step", float(np.median(values))) for name, values in measured.items()),
        *ratio_figures("step of the loop / the slower of the two alone", step, slower, partial(at_most, limit=1.15)),
        *ratio_figures("step of the loop / the two alone, one after the other", step, together),
    ]
    return publish("overlap", figures, options, recipe=RECIPE, overrides=settings)


def rollout_seconds(loop: Loop) -> float:
    """Seconds of generating a batch, with the learner idle."""
    prompts = loop.prompts.batch(loop.done)
    return seconds(lambda: [group for part in loop.components.rollouts.submit(prompts) for group in part])


def learner_seconds(loop: Loop) -> float:
    """Seconds of a learner step on a batch, with the engine idle."""
    groups = loop.components.rollouts.generate(loop.prompts.batch(loop.done))
    scored = loop.components.rewards.score(groups)
    loop.done += 1
    return seconds(lambda: loop.components.learner.step(scored))


if __name__ == "__main__":
    sys.exit(main())
