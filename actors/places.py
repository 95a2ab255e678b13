"""Where an actor may stand, as Ray is told."""

from __future__ import annotations

from typing import Any

from geovlm_ray.config import Config
from geovlm_ray.placement import GIB

STRATEGIES = {"pack": "DEFAULT", "spread": "SPREAD"}


def place(config: Config, kind: str, name: str) -> dict[str, Any]:
    """Options of an actor of a kind, a field of `PlacementConfig`, with a name."""
    share = getattr(config.placement, kind)
    return {
        "num_cpus": share.num_cpus,
        "num_gpus": share.num_gpus,
        "memory": int(share.memory_gb * GIB) or None,
        "scheduling_strategy": STRATEGIES[config.placement.strategy],
        "name": f"{config.run.name}-{name}",
    }
