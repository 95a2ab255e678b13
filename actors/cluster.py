"""The Ray cluster of a run: connection, capacity check and actor creation."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import ray
from ray._private import services
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
"""Seconds between capacity checks while a run waits for nodes."""


def connect() -> None:
    """Connect to the cluster at RAY_ADDRESS, or start a local one.

    The address that `ray start` leaves in the temporary folder is ignored: that cluster may be dead, and Ray would wait
    for it.

    Raises:
        RunError: the cluster cannot be reached or started.
    """
    if not ray.is_initialized():
        local = "RAY_ADDRESS" not in os.environ
        if local and "RAY_AUTH_MODE" not in os.environ:
            # Ray then enables token authentication, with this token instead of the one in the home folder.
            os.environ["RAY_AUTH_TOKEN"] = _local_token()
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            with preserve_signal_handlers(), _daemons_in_own_process_groups():
                ray.init(
                    "local" if local else None,
                    logging_level=logging.ERROR,
                    include_dashboard=False if local else None,
                    runtime_env={"worker_process_setup_hook": silence_third_party_logs},
                )
        except (ConnectionError, RuntimeError) as error:
            where = os.environ.get("RAY_ADDRESS", "this machine")
            raise RunError(f"Ray on {where} cannot be reached or started: {error}") from error


@contextmanager
def _daemons_in_own_process_groups() -> Iterator[None]:
    """Keep signals to the driver's process group from Ray's daemons, which the driver needs until it has saved."""
    original = services.ConsolePopen
    services.ConsolePopen = partial(original, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = original


@cache
def _local_token() -> str:
    """Authentication token of local clusters: Ray listens on all interfaces and runs code for its clients.

    The token is only in the environment, so no file is left behind.
    """
    return secrets.token_hex(32)


def nodes() -> list[Node]:
    """Resources of every live node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def wait_for_capacity(config: Config) -> None:
    """Wait until the cluster has capacity for all actors of a run; requests it from an autoscaler.

    Raises:
        RunError: the capacity is missing after ``run.wait_for_nodes_s``.
    """
    deadline = time.monotonic() + config.run.wait_for_nodes_s
    requested = False
    while True:
        try:
            check_fits(config, nodes())
            break
        except RunError as error:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
            log.warning("waiting for nodes, %.0f s left: %s", left, error)
        if not requested:
            kinds = [kind for kind in resource_requests(config) for _ in range(kind.count)]
            request_resources(bundles=[p.bundle for p in kinds if p.bundle])
            requested = True
        time.sleep(min(POLL_S, left))
    if requested:
        # From here on, the actors themselves keep the nodes.
        request_resources(bundles=[])


def build(config: Config, ready: Ready) -> Components:
    """Start all actors of a run."""
    HEARTBEAT.on_write = HeartbeatGauges()
    # Actors on other nodes have another working directory.
    folder = str(Path(config.run.dir).absolute())
    config = config.model_copy(update={"run": config.run.model_copy(update={"dir": folder})})
    rollouts, rewards, learner = start_actors(config, ready)
    return Components(rollouts, rewards, learner, RayMetrics(config.run.name), RayTimeline(config.run.name))


def start_actors(
    config: Config, ready: Ready, rollout: type[RolloutActor] = RolloutActor, learner: type[LearnerActor] = LearnerActor
) -> tuple[RayRollouts, RayRewards, RayLearner]:
    """Start all actors of a run, largest first.

    A smaller actor could otherwise block the only node that fits a larger one. `RayLearner` returns when its actors are
    placed, and `RayRewards` starts the SBERT actor before the reward actors, which need no GPU.

    Raises:
        RunError: the cluster has no capacity for them.
    """
    connect()
    wait_for_capacity(config)
    learners = RayLearner(config, ready.model, learner)
    rollouts = RayRollouts(config, ready.model, rollout)
    return rollouts, RayRewards(config, ready.tasks), learners


def start_rollouts(config: Config) -> RayRollouts:
    """Start the rollout actors of an evaluation; ``model.path`` must be a folder that all nodes see."""
    connect()
    wait_for_capacity(config)
    return RayRollouts(config, Path(config.model.path))
