"""Ray scheduling options of actors, and their start timeout."""

from __future__ import annotations

from typing import Any

from geovlm_ray.config import Config
from geovlm_ray.core.errors import LostError
from geovlm_ray.core.placement import GIB

STRATEGIES = {"pack": "DEFAULT", "spread": "SPREAD"}


def actor_options(config: Config, kind: str, name: str) -> dict[str, Any]:
    """Ray options of an actor; ``kind`` is a field of `PlacementConfig`."""
    resources = getattr(config.placement, kind)
    return {
        "num_cpus": resources.num_cpus,
        "num_gpus": resources.num_gpus,
        "memory": int(resources.memory_gb * GIB) or None,
        "scheduling_strategy": STRATEGIES[config.placement.strategy],
        "name": f"{config.run.name}-{name}",
    }


def start_timeout_s(config: Config) -> float:
    """Seconds to wait for actors to start."""
    return max(config.rollout.stall_s, config.run.wait_for_nodes_s)


def start_timeout_error(config: Config, problem: str) -> LostError:
    """The error of actors that did not start in time; ``problem`` begins the message."""
    return LostError(
        f"{problem} within {start_timeout_s(config):g} s, the longer of rollout.stall_s and "
        "run.wait_for_nodes_s; `ray status` shows free resources and pending demands"
    )
