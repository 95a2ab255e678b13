"""A run of `toy_policy` on the cluster that RAY_ADDRESS names: ``python -m benchmarks.toy_run section.key=value ...``.

All but engines and learner is what ``geovlm-ray train`` runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
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
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.data.sources import open_stream
from geovlm_ray.training.preflight import Ready, trained_tasks
from geovlm_ray.training.run import execute

LIVED = "lived.json"
"""File of a run with the engines that were there at its last step."""


def main() -> int:
    """Run or resume."""
    silence_third_party_logs()
    config = load_config("demo", sys.argv[1:])
    stream = open_stream(config.data)
    try:
        execute(config, Ready(Path("toy"), stream, trained_tasks(config, stream)), build, Console())
    except UserError as error:
        print(f"toy_run: {error}", file=sys.stderr)
        return 1
    return 0


def build(config: Config, ready: Ready) -> Components:
    """The parts as actors."""
    rollouts, rewards, learner = start_actors(config, ready, ToyRolloutActor, ToyLearnerActor)
    return Components(rollouts, rewards, learner, at_the_end(config, rollouts))


def at_the_end(config: Config, rollouts: RayRollouts) -> Callable[[dict[str, Any]], None]:
    """What writes down, after the last step, which engines are there."""

    def report(metrics: dict[str, Any]) -> None:
        if metrics["step"] == config.run.steps:
            lived = [name for actor in rollouts.actors if (name := _identity(actor))]
            (config.run.folder / LIVED).write_text(json.dumps(lived))

    return report


def _identity(actor: ray.actor.ActorHandle) -> str | None:
    try:
        return ray.get(actor.identity.remote())
    except RayError:
        return None


if __name__ == "__main__":
    sys.exit(main())
