"""Actor heartbeats as gauges on Ray's Prometheus endpoint."""

from __future__ import annotations

from typing import Any

from ray.util.metrics import Gauge

from actors.metrics import PREFIX

DESCRIPTIONS = {
    "idle_ratio": "Fraction of the last minute in which the actor was idle",
    "memory_bytes": "Resident memory of the actor process",
    "busy_seconds": "Seconds since the actor's current call started; 0 if idle",
    "queue": "Prompts, groups or samples in the actor's current call",
    "weight_version": "Weight version that the actor holds",
    "tokens_per_second": "Tokens per second of the actor over the last minute",
    "samples_per_second": "Samples per second of the actor over the last minute",
    "texts_per_second": "Texts per second of the actor over the last minute",
}


class HeartbeatGauges:
    """One gauge per heartbeat value, labelled by run and actor; Ray adds the prefix ``ray_``."""

    def __init__(self) -> None:
        self._gauges: dict[str, Gauge] = {}

    def __call__(self, heartbeat: dict[str, Any]) -> None:
        """Export a heartbeat."""
        values = {
            "idle_ratio": heartbeat["idle"],
            "memory_bytes": heartbeat["memory_bytes"],
            "busy_seconds": 0.0 if heartbeat["state"] == "idle" else heartbeat["time"] - heartbeat["since"],
            "queue": heartbeat["queue"] or 0,
            "weight_version": heartbeat["weight_version"],
            f"{heartbeat['unit']}_per_second": heartbeat["rate"],
        }
        for name, value in values.items():
            if value is None or name not in DESCRIPTIONS:
                continue
            if name not in self._gauges:
                description = DESCRIPTIONS[name]
                self._gauges[name] = Gauge(f"{PREFIX}_actor_{name}", description, tag_keys=("run", "actor"))
            self._gauges[name].set(value, tags={"run": heartbeat["run"], "actor": heartbeat["actor"]})
