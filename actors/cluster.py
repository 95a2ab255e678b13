"""The Ray cluster of a run: connecting, checking that everything fits, building the actors."""

from __future__ import annotations

import logging
import os
import secrets
import time
from functools import cache
from pathlib import Path

import ray
from ray.autoscaler.sdk import request_resources

from actors.heartbeat_metrics import HeartbeatGauges
from actors.learner import LearnerActor, RayLearner
from actors.metrics import RayMetrics
from actors.reward import RayRewards
from actors.rollout import RolloutActor
from actors.rollout_pool import RayRollouts
from actors.timeline import RayTimeline
from geovlm_ray.config import Config
from geovlm_ray.core.errors import RunError
from geovlm_ray.core.interfaces import Components
from geovlm_ray.core.interrupts import preserve_signal_handlers
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.observability.heartbeat import HEARTBEAT
from geovlm_ray.training.capacity import Node, check_fits, resource_requests
from geovlm_ray.training.preflight import Ready

log = logging.getLogger(__name__)

POLL_S = 10.0
"""Seconds between two looks at the cluster, while a run waits for nodes."""


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine.

    A cluster that `ray start` left its address of in the temporary folder is not looked for: it may be dead, and Ray
    would wait for it.

    Raises:
        RunError: it cannot be reached or started.
    """
    if not ray.is_initialized():
        own = "RAY_ADDRESS" not in os.environ
        if own and "RAY_AUTH_MODE" not in os.environ:
            # Ray then turns its token mode on by itself, and takes this token in place of one in the home folder.
            os.environ["RAY_AUTH_TOKEN"] = _own_token()
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            with preserve_signal_handlers():
                ray.init(
                    "local" if own else None,
                    logging_level=logging.ERROR,
                    include_dashboard=False if own else None,
                    runtime_env={"worker_process_setup_hook": silence_third_party_logs},
                )
        except (ConnectionError, RuntimeError) as error:
            where = os.environ.get("RAY_ADDRESS", "this machine")
            raise RunError(f"Ray on {where} cannot be reached or started: {error}") from error


@cache
def _own_token() -> str:
    """A token for the clusters that this process starts: Ray listens on all interfaces, and runs code for its clients.

    It is in the environment alone, so that no file of it is left behind.
    """
    return secrets.token_hex(32)


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
            kinds = [kind for kind in resource_requests(config) for _ in range(kind.count)]
            request_resources(bundles=[p.bundle for p in kinds if p.bundle])
            asked = True
        time.sleep(min(POLL_S, left))
    if asked:
        # From here on the actors themselves keep their nodes.
        request_resources(bundles=[])


def build(config: Config, ready: Ready) -> Components:
    """Start all actors of a run."""
    HEARTBEAT.wrote = HeartbeatGauges()
    # Actors of other nodes have another working directory.
    folder = str(Path(config.run.dir).absolute())
    config = config.model_copy(update={"run": config.run.model_copy(update={"dir": folder})})
    rollouts, rewards, learner = start_actors(config, ready)
    return Components(rollouts, rewards, learner, RayMetrics(config.run.name), RayTimeline(config.run.name))


def start_actors(
    config: Config, ready: Ready, rollout: type[RolloutActor] = RolloutActor, learner: type[LearnerActor] = LearnerActor
) -> tuple[RayRollouts, RayRewards, RayLearner]:
    """Start all actors of a run, the largest first.

    A smaller one on the only node that holds a larger one would keep that out. `RayLearner` returns when its actors are
    placed, and `RayRewards` starts the SBERT actor before those that need no GPU.

    Raises:
        RunError: the cluster has no room for them.
    """
    connect()
    wait_for_room(config)
    learners = RayLearner(config, ready.model, learner)
    rollouts = RayRollouts(config, ready.model, rollout)
    return rollouts, RayRewards(config, ready.tasks), learners


def engines(config: Config) -> RayRollouts:
    """Start the rollout actors of an evaluation, whose model is a folder that all nodes see."""
    connect()
    wait_for_room(config)
    return RayRollouts(config, Path(config.model.path))
