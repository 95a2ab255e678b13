"""Monitoring of a run's driver: heartbeat, log, watchdog, and the consumers of each step's metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from geovlm_ray.config import Config
from geovlm_ray.core.interfaces import Report, Timeline
from geovlm_ray.core.interrupts import Interrupted
from geovlm_ray.observability.heartbeat import HEARTBEAT, remove_heartbeats
from geovlm_ray.observability.logs import close_log, log_failure, open_log
from geovlm_ray.observability.trace import Tracer
from geovlm_ray.observability.wandb_log import WandbLog
from geovlm_ray.observability.watchdog import Watchdog

logger = logging.getLogger(__name__)


class RunMonitor:
    """Who is told the metrics of each step."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.wandb = WandbLog(config, config.run.wandb) if config.run.wandb else None

    def reports(self, report: Report | None, timeline: Timeline | None) -> Report:
        """All of them as one: those of the parts, the trace, Weights & Biases."""
        told: list[Report] = [lambda metrics: HEARTBEAT.count(metrics["rollout/tokens"])]
        told += [report] if report else []
        told += [Tracer(self.config.run.folder, self.config.run.trace_steps, timeline)]
        told += [self.wandb] if self.wandb else []

        def tell(metrics: dict[str, float]) -> None:
            for each in told:
                each(metrics)

        return tell


@contextmanager
def monitor_run(config: Config) -> Iterator[RunMonitor]:
    """The driver's heartbeat, log and watchdog, while the run goes on within.

    Raises:
        ConfigError: ``run.wandb`` asks for a package that is not installed.
        RunError: Weights & Biases refuses the run.
    """
    run = config.run
    watch = RunMonitor(config)
    remove_heartbeats(run.folder)
    HEARTBEAT.start(run.folder, "driver", run.name)
    open_log(run.folder, run.name, "driver", run.log_level)
    watchdog = Watchdog(run.folder, run.step_limit_s)
    state = "failed"
    logger.info("the run starts")
    try:
        yield watch
        state = "ended"
        logger.info("the run has ended")
    except Interrupted:
        state = "interrupted"
        logger.info("the run is interrupted")
        raise
    except BaseException:
        log_failure(logger, "the run ends with an error")
        raise
    finally:
        watchdog.close()
        HEARTBEAT.stop(state)
        close_log()
        if watch.wandb:
            watch.wandb.close(failed=state != "ended")
