"""Where an actor may stand, as Ray is told, and how long it may take until it does."""

from __future__ import annotations

from typing import Any

from geovlm_ray.config import Config
from geovlm_ray.core.errors import LostError
from geovlm_ray.core.placement import GIB

STRATEGIES = {"pack": "DEFAULT", "spread": "SPREAD"}


def actor_options(config: Config, kind: str, name: str) -> dict[str, Any]:
    """Options of an actor of a kind, a field of `PlacementConfig`, with a name."""
    share = getattr(config.placement, kind)
    return {
        "num_cpus": share.num_cpus,
        "num_gpus": share.num_gpus,
        "memory": int(share.memory_gb * GIB) or None,
        "scheduling_strategy": STRATEGIES[config.placement.strategy],
        "name": f"{config.run.name}-{name}",
    }


def start_limit_s(config: Config) -> float:
    """Seconds after which actors that have not started are waited for no longer."""
    return max(config.rollout.stall_s, config.run.wait_for_nodes_s)


def not_started(config: Config, what: str) -> LostError:
    """The error of a run that has waited so long; what is the case comes first in its message."""
    return LostError(
        f"{what} within {start_limit_s(config):g} s, the longer of rollout.stall_s and "
        "run.wait_for_nodes_s; `ray status` says what is free, and what is asked for in vain"
    )
