"""A run of `toy_policy` on the cluster at RAY_ADDRESS: ``python -m benchmarks.toy_run section.key=value ...``.

Everything except engines and learner is that of ``geovlm-ray train``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from rich.console import Console

from actors.cluster import start_actors
from actors.rollout_pool import RayRollouts
from benchmarks.toy_policy import ToyLearnerActor, ToyRolloutActor
from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import UserError
from geovlm_ray.core.interfaces import Components
from geovlm_ray.core.interrupts import Interrupted, interruptible
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.data.sources import open_stream
from geovlm_ray.training.preflight import Ready, trained_tasks
from geovlm_ray.training.run import execute

SURVIVORS = "survivors.json"
"""File in the run directory that lists the engines alive after the last step."""


def main() -> int:
    """Start or resume the run."""
    silence_third_party_logs()
    config = load_config("demo", sys.argv[1:])
    stream = open_stream(config.data)
    try:
        with interruptible():
            execute(config, Ready(Path("toy"), stream, trained_tasks(config, stream)), build, Console())
    except Interrupted as error:
        print(f"toy_run: {error}", file=sys.stderr)
        return error.exit_code
    except UserError as error:
        print(f"toy_run: {error}", file=sys.stderr)
        return 1
    return 0


def build(config: Config, ready: Ready) -> Components:
    """The components, as actors."""
    components = start_actors(config, ready, ToyRolloutActor, ToyLearnerActor)
    assert isinstance(components.rollouts, RayRollouts)
    return replace(components, report=report_survivors(config, components.rollouts), timeline=None)


def report_survivors(config: Config, rollouts: RayRollouts) -> Callable[[dict[str, Any]], None]:
    """A callback that lists the living engines in `SURVIVORS` after the last step."""

    def report(metrics: dict[str, Any]) -> None:
        if metrics["step"] == config.run.steps:
            names = [name for actor in rollouts.actors if (name := _identity(actor))]
            (config.run.folder / SURVIVORS).write_text(json.dumps(names))

    return report


def _identity(actor: ray.actor.ActorHandle) -> str | None:
    try:
        return ray.get(actor.identity.remote())
    except RayError:
        return None


if __name__ == "__main__":
    sys.exit(main())
