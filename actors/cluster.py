"""The Ray cluster of a run: connection, capacity check and actor creation."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import ray
from ray._private import ray_constants, services

from actors.heartbeat_metrics import HeartbeatGauges
from actors.learner import LearnerActor, RayLearner
from actors.metrics import RayMetrics
from actors.placement import Reservation, nodes
from actors.reward import RayRewards
from actors.rollout import RolloutActor
from actors.rollout_pool import RayRollouts
from actors.timeline import RayTimeline
from geovlm_ray.config import Config
from geovlm_ray.core.cluster_address import cluster_address
from geovlm_ray.core.errors import RunError, UserError
from geovlm_ray.core.interfaces import Components
from geovlm_ray.core.interrupts import preserve_signal_handlers
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.observability.heartbeat import HEARTBEAT
from geovlm_ray.training.capacity import KINDS, Node
from geovlm_ray.training.preflight import Ready


def connect() -> None:
    """Connect to the cluster at RAY_ADDRESS, or start a local one, which listens on the loopback interface only.

    The address that `ray start` leaves in the temporary folder is ignored: that cluster may be dead, and Ray would wait
    for it.

    Raises:
        RunError: the cluster cannot be reached or started.
    """
    if not ray.is_initialized():
        local = cluster_address() is None
        if local and "RAY_AUTH_MODE" not in os.environ:
            # Ray then enables token authentication, with this token instead of the one in the home folder.
            os.environ["RAY_AUTH_TOKEN"] = _local_token()
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            with preserve_signal_handlers(), _daemons_in_own_process_groups(), _on_loopback(local):
                ray.init(
                    "local" if local else None,
                    logging_level=logging.ERROR,
                    include_dashboard=False if local else None,
                    runtime_env={"worker_process_setup_hook": silence_third_party_logs},
                )
        except (ConnectionError, RuntimeError) as error:
            where = cluster_address() or "this machine"
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


@contextmanager
def _on_loopback(local: bool) -> Iterator[None]:
    """Let a local cluster that is started in the block listen as on macOS, on the loopback interface only."""
    if not local:
        yield
        return
    name, default = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        del os.environ[name]
        ray_constants.ENABLE_RAY_CLUSTER = default


@cache
def _local_token() -> str:
    """Authentication token of local clusters, which run code for any user of the machine that has it.

    The token is only in the environment, so no file is left behind.
    """
    return secrets.token_hex(32)


def build(config: Config, ready: Ready) -> Components:
    """Start all actors of a run."""
    HEARTBEAT.on_write = HeartbeatGauges()
    # Actors on other nodes have another working directory.
    folder = str(Path(config.run.dir).absolute())
    config = config.model_copy(update={"run": config.run.model_copy(update={"dir": folder})})
    return start_actors(config, ready)


def start_actors(
    config: Config, ready: Ready, rollout: type[RolloutActor] = RolloutActor, learner: type[LearnerActor] = LearnerActor
) -> Components:
    """Reserve the resources of all actors of a run and start them.

    Raises:
        RunError: the cluster has no room for them.
    """
    reservation = _reserve(config, *KINDS)
    try:
        rollouts = RayRollouts(config, ready.model, rollout, reservation)
        if 0 < config.placement.rollout.num_gpus < 1:
            # vLLM counts what others allocate on its GPU while it starts as its own.
            rollouts.slots.require(lambda actor: [actor.__ray_ready__.remote()])
            rollouts.slots.ready(at_least=config.placement.rollout.actors)
        return Components(
            rollouts=rollouts,
            rewards=RayRewards(config, ready.tasks, reservation),
            learner=RayLearner(config, ready.model, learner, reservation),
            report=RayMetrics(config.run.name),
            timeline=RayTimeline(config.run.name),
            release=reservation.release,
        )
    except UserError:
        reservation.release()
        raise


def start_rollouts(config: Config) -> RayRollouts:
    """Start the rollout actors of an evaluation; ``model.path`` must be a folder that all nodes see."""
    return RayRollouts(config, Path(config.model.path), reservation=_reserve(config, "rollout"))


def cluster_nodes() -> list[Node]:
    """Resources of every node of the cluster, after connecting to it."""
    connect()
    return nodes()


def check_room(config: Config) -> None:
    """Reserve the resources of all actors of a run for a moment, without waiting for new nodes.

    Raises:
        RunError: the cluster has no room for them.
    """
    run = config.run.model_copy(update={"wait_for_nodes_s": 0.0})
    _reserve(config.model_copy(update={"run": run}), *KINDS).release()


def _reserve(config: Config, *kinds: str) -> Reservation:
    connect()
    reservation = Reservation(config, *kinds)
    reservation.wait()
    return reservation
