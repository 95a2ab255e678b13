"""Heartbeat, log and call tracing of every actor, written to the run directory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from actors.heartbeat_metrics import HeartbeatGauges
from geovlm_ray.config import RunConfig
from geovlm_ray.observability.heartbeat import HEARTBEAT
from geovlm_ray.observability.logs import log_failure, open_log

log = logging.getLogger(__name__)


def start_monitoring(run: RunConfig) -> None:
    """Start the heartbeat and the log of this actor process; failures of either are not raised."""
    actor = (ray.get_runtime_context().get_actor_name() or "").removeprefix(f"{run.name}-")
    HEARTBEAT.start(run.folder, actor, run.name, HeartbeatGauges())
    open_log(run.folder, run.name, actor, run.log_level)
    log.info("started")


@contextmanager
def trace_call(name: str, queue: int | None = None) -> Iterator[None]:
    """Record one actor call in the heartbeat, and its exception, if any, in the log."""
    with HEARTBEAT.busy(name, queue):
        try:
            yield
        except Exception:
            log_failure(log, f"{name} failed")
            raise


def set_weight_version(version: int) -> None:
    """Record the weight version that this process now holds."""
    if version != HEARTBEAT.weight_version:
        HEARTBEAT.weight_version = version
        log.debug("holds weights of version %d", version)
