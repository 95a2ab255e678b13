"""Ray scheduling options of actors."""

from __future__ import annotations

from typing import Any

from geovlm_ray.config import Config
from geovlm_ray.core.placement import GIB


def actor_options(config: Config, kind: str, name: str) -> dict[str, Any]:
    """Ray options of an actor; ``kind`` is a field of `PlacementConfig`."""
    resources = getattr(config.placement, kind)
    return {
        "num_cpus": resources.num_cpus,
        "num_gpus": resources.num_gpus,
        "memory": int(resources.memory_gb * GIB) or None,
        "name": f"{config.run.name}-{name}",
    }
