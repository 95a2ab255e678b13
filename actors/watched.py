"""What every actor does to be watched: its pulse and its log in the run directory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from actors.pulse_metrics import PulseGauges
from geovlm_ray.config import RunConfig
from geovlm_ray.logs import log_failure, open_log
from geovlm_ray.pulse import PULSE

log = logging.getLogger(__name__)


def watch(run: RunConfig) -> None:
    """Begin the pulse and the log of this process, which is one of a run's actors; no failure of either is raised."""
    actor = (ray.get_runtime_context().get_actor_name() or "").removeprefix(f"{run.name}-")
    PULSE.start(run.folder, actor, run.name, PulseGauges())
    open_log(run.folder, run.name, actor, run.log_level)
    log.info("started")


@contextmanager
def call(name: str, queue: int | None = None) -> Iterator[None]:
    """One call of an actor: its pulse shows it, its log what it raises."""
    with PULSE.busy(name, queue):
        try:
            yield
        except Exception:
            log_failure(log, f"{name} failed")
            raise


def holds(version: int) -> None:
    """Take down the version of the weights that this process now holds."""
    if version != PULSE.weight_version:
        PULSE.weight_version = version
        log.debug("holds weights of version %d", version)
