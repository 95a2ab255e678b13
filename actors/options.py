"""Ray scheduling options of actors."""

from __future__ import annotations

import os
from typing import Any

import ray

from geovlm_ray.config import Config
from geovlm_ray.core.placement import GIB


def hide_other_gpus() -> None:
    """Hide all GPUs from an actor that reserves none: Ray would let it see every one; called before CUDA is used."""
    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def actor_options(config: Config, kind: str, name: str) -> dict[str, Any]:
    """Ray options of an actor; ``kind`` is a field of `PlacementConfig`."""
    resources = getattr(config.placement, kind)
    return {
        "num_cpus": resources.num_cpus,
        "num_gpus": resources.num_gpus,
        "memory": int(resources.memory_gb * GIB) or None,
        "name": f"{config.run.name}-{name}",
    }
