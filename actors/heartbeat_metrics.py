"""The heartbeats of actors where Ray's Prometheus endpoint shows them."""

from __future__ import annotations

from typing import Any

from ray.util.metrics import Gauge

from actors.metrics import PREFIX

DESCRIPTIONS = {
    "idle_ratio": "Share of the last minute in which an actor did nothing",
    "memory_bytes": "Resident memory of an actor's process",
    "busy_seconds": "How long the present call of an actor has taken; 0 where it has none",
    "queue": "Prompts, groups or samples that an actor has in hand",
    "weight_version": "Version of the weights that an actor holds",
    "tokens_per_second": "Tokens per second of an actor over the last minute",
    "samples_per_second": "Samples per second of an actor over the last minute",
    "texts_per_second": "Texts per second of an actor over the last minute",
}


class HeartbeatGauges:
    """One gauge a figure, labelled by run and actor; Ray puts ``ray_`` before its name."""

    def __init__(self) -> None:
        self._gauges: dict[str, Gauge] = {}

    def __call__(self, heartbeat: dict[str, Any]) -> None:
        """Show a heartbeat."""
        figures = {
            "idle_ratio": heartbeat["idle"],
            "memory_bytes": heartbeat["memory_bytes"],
            "busy_seconds": 0.0 if heartbeat["state"] == "idle" else heartbeat["time"] - heartbeat["since"],
            "queue": heartbeat["queue"] or 0,
            "weight_version": heartbeat["weight_version"],
            f"{heartbeat['unit']}_per_second": heartbeat["rate"],
        }
        for name, value in figures.items():
            if value is None or name not in DESCRIPTIONS:
                continue
            if name not in self._gauges:
                description = DESCRIPTIONS[name]
                self._gauges[name] = Gauge(f"{PREFIX}_actor_{name}", description, tag_keys=("run", "actor"))
            self._gauges[name].set(value, tags={"run": heartbeat["run"], "actor": heartbeat["actor"]})
