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
from geovlm_ray.observability.trackers import TRACKERS
from geovlm_ray.observability.trackers.several import Trackers
from geovlm_ray.observability.watchdog import Watchdog

logger = logging.getLogger(__name__)


class RunMonitor:
    """Forwards the metrics of each step to their consumers; keeps the run's experiment trackers."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.trackers = Trackers(config, TRACKERS)

    def combine_reports(self, report: Report | None, timeline: Timeline | None) -> Report:
        """One callback for heartbeat, backend (``report``) and trace."""
        consumers = [report, Tracer(self.config.run.folder, self.config.run.trace_steps, timeline)]

        def report_all(metrics: dict[str, float]) -> None:
            HEARTBEAT.count(metrics["rollout/tokens"])
            for consumer in filter(None, consumers):
                consumer(metrics)

        return report_all


@contextmanager
def monitor_run(config: Config) -> Iterator[RunMonitor]:
    """Run the driver's heartbeat, log and watchdog for the duration of the context.

    Raises:
        ConfigError: the package of an experiment tracker is not installed.
        RunError: a tracker rejects the run.
    """
    run = config.run
    monitor = RunMonitor(config)
    remove_heartbeats(run.folder)
    HEARTBEAT.start(run.folder, "driver", run.name)
    open_log(run.folder, run.name, "driver", run.log_level)
    watchdog = Watchdog(run.folder, run.step_limit_s)
    state = "failed"
    logger.info("run started")
    try:
        yield monitor
        state = "ended"
        logger.info("run finished")
    except Interrupted:
        state = "interrupted"
        logger.info("run interrupted")
        raise
    except BaseException:
        log_failure(logger, "run failed")
        raise
    finally:
        watchdog.close()
        HEARTBEAT.stop(state)
        # Trackers log what they could not send.
        monitor.trackers.close(failed=state != "ended")
        close_log()
