"""The Ray cluster of a run: connecting, checking that everything fits, building the actors."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import ray
from ray.autoscaler.sdk import request_resources

from actors.learner import RayLearner
from actors.metrics import RayMetrics
from actors.pulse_metrics import PulseGauges
from actors.reward import RayRewards
from actors.rollout_pool import RayRollouts
from actors.timeline import RayTimeline
from geovlm_ray.config import Config
from geovlm_ray.errors import RunError
from geovlm_ray.loop import Built
from geovlm_ray.preflight import Ready
from geovlm_ray.pulse import PULSE
from geovlm_ray.quiet import quiet
from geovlm_ray.room import Node, check_fits, placement

log = logging.getLogger(__name__)

POLL_S = 10.0
"""Seconds between two looks at the cluster, while a run waits for nodes."""


def connect() -> None:
    """Join the cluster that is running, or start one on this machine."""
    if not ray.is_initialized():
        if "RAY_ADDRESS" not in os.environ:
            # A cluster that lives and dies with this process needs no token, and must not leave one behind.
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            ray.init(
                logging_level=logging.ERROR,
                include_dashboard=None if "RAY_ADDRESS" in os.environ else False,
                runtime_env={"worker_process_setup_hook": quiet},
            )
        except (ConnectionError, RuntimeError) as error:
            where = os.environ.get("RAY_ADDRESS", "this machine")
            raise RunError(f"Ray on {where} cannot be reached or started: {error}") from error


def nodes() -> list[Node]:
    """What every living node has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def wait_for_room(config: Config) -> None:
    """Ask the autoscaler, where there is one, for room for all actors of a run, and wait until there is.

    Raises:
        RunError: there is none after ``run.wait_for_nodes_s``.
    """
    end = time.monotonic() + config.run.wait_for_nodes_s
    asked = False
    while True:
        try:
            check_fits(config, nodes())
            break
        except RunError as error:
            left = end - time.monotonic()
            if left <= 0:
                raise
            log.warning("waiting for nodes, %.0f s left: %s", left, error)
        if not asked:
            kinds = [kind for kind in placement(config) for _ in range(kind.count)]
            request_resources(bundles=[p.bundle for p in kinds if p.bundle])
            asked = True
        time.sleep(min(POLL_S, left))
    if asked:
        # From here on the actors themselves keep their nodes.
        request_resources(bundles=[])


def build(config: Config, ready: Ready) -> Built:
    """Start all actors of a run."""
    connect()
    wait_for_room(config)
    PULSE.wrote = PulseGauges()
    # Actors of other nodes have another working directory.
    folder = str(Path(config.run.dir).absolute())
    config = config.model_copy(update={"run": config.run.model_copy(update={"dir": folder})})
    return Built(
        RayRollouts(config, ready.model),
        RayRewards(config, ready.tasks),
        RayLearner(config, ready.model),
        RayMetrics(config.run.name),
        RayTimeline(config.run.name),
    )


def engines(config: Config) -> RayRollouts:
    """Start the rollout actors of an evaluation, whose model is a folder that all nodes see."""
    connect()
    wait_for_room(config)
    return RayRollouts(config, Path(config.model.path))
