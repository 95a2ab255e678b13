"""Run metrics as gauges on Ray's Prometheus endpoint."""

from __future__ import annotations

import re

from ray.util.metrics import Gauge

PREFIX = "geovlm"


class RayMetrics:
    """One gauge per metric, labelled by run and, for per-task metrics, by task; Ray adds the prefix ``ray_``."""

    def __init__(self, run: str) -> None:
        self.run = run
        self._gauges: dict[str, Gauge] = {}

    def __call__(self, metrics: dict[str, float]) -> None:
        """Export the metrics of a step."""
        for key, value in metrics.items():
            name, task = gauge_name(key)
            if name not in self._gauges:
                self._gauges[name] = Gauge(name, description=f"{key} of a training step", tag_keys=("run", "task"))
            self._gauges[name].set(value, tags={"run": self.run, "task": task})


def gauge_name(key: str) -> tuple[str, str]:
    """Prometheus name of a metric, which ends in its unit, and its task, or an empty string.

    ``seconds/step`` becomes ``geovlm_step_seconds``, ``task/vqa/reward`` becomes ``geovlm_task_reward`` of ``vqa``.
    """
    parts = key.split("/")
    task = parts.pop(1) if parts[0] == "task" else ""
    if parts[0] == "seconds":
        parts = [*parts[1:], "seconds"]
    return re.sub(r"\W", "_", "_".join([PREFIX, *parts])), task
