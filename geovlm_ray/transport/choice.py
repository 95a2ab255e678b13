"""The transport that fits the placement of a run."""

from __future__ import annotations

from inspect import isabstract
from typing import Any

from geovlm_ray.core.errors import expected_one_of
from geovlm_ray.core.placement import PlacementConfig
from geovlm_ray.transport import TRANSPORTS
from geovlm_ray.transport.base import Transport

AUTO = "auto"
"""Value of ``sync.transport`` that selects a transport by `fitting_transport`."""


def fitting_transport(placement: PlacementConfig, tensor_parallel: int, sends_adapter: bool) -> str:
    """Name of the fastest transport between learner and engines.

    NCCL does not run where two of them may share a GPU.
    """
    rollout, learner = placement.rollout, placement.learner
    if sends_adapter:
        return "object_store"
    if not (rollout.num_gpus and learner.num_gpus):
        return "gloo" if tensor_parallel > 1 else "object_store"
    if rollout.num_gpus + learner.num_gpus > 1:
        return "nccl"
    return "ipc" if placement.colocate or rollout.actors == learner.actors == 1 else "object_store"


def check_transport(name: str) -> None:
    """Raise ValueError if the name is not that of a complete transport."""
    if name not in TRANSPORTS:
        raise ValueError(f"sync.transport: {expected_one_of((AUTO, *TRANSPORTS), name)}")
    registered: Any = TRANSPORTS[name]
    if not (isinstance(registered, type) and issubclass(registered, Transport)) or isabstract(registered):
        raise ValueError(
            f"sync.transport={name}: expected a subclass of Transport with send and receive in TRANSPORTS, "
            f"found {registered!r}"
        )
