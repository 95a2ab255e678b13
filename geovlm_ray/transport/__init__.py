"""Weight transports from the learner to the engines; a new one is a `Transport` and an entry in `TRANSPORTS`."""

from geovlm_ray.transport.base import Transport
from geovlm_ray.transport.channels import Gloo, Ipc, Nccl, SharedMemory
from geovlm_ray.transport.object_store import ObjectStore

TRANSPORTS: dict[str, type[Transport]] = {
    "object_store": ObjectStore,
    "nccl": Nccl,
    "ipc": Ipc,
    "gloo": Gloo,
    "shared_memory": SharedMemory,
}
"""Transports by the name that ``sync.transport`` selects."""
