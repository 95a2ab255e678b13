"""The receiving ends in vLLM's workers: its own transfer engines with verification, and two that need no GPU.

vLLM imports this module in every worker, since it holds the worker extension class of direct transports.
"""

from __future__ import annotations

import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

import torch
from torch import nn
from torch.distributed import BroadcastOptions, ProcessGroupGloo
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferEngine
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine
from vllm.distributed.weight_transfer.packed_tensor import unpack_tensor

from geovlm_ray.core.errors import RunError
from geovlm_ray.transport.digest import digest_values, tensor_digest
from geovlm_ray.transport.rendezvous import open_store

NCCL, IPC, GLOO, SHARED_MEMORY = "geovlm_nccl", "geovlm_ipc", "geovlm_gloo", "geovlm_shared_memory"
"""Names of the engines in vLLM's factory."""
RENDEZVOUS_TIMEOUT = timedelta(seconds=120)
"""Time in which all ends of a Gloo group must join, and a broadcast must complete."""

Weights = Iterable[tuple[str, torch.Tensor]]


def gloo_group(host: str, port: int, rank: int, size: int) -> ProcessGroupGloo:
    """Join a Gloo process group of its own, apart from the default one; rank 0 is the learner's."""
    store = open_store(host, port, rank, size, RENDEZVOUS_TIMEOUT)
    return ProcessGroupGloo(store, rank, size, RENDEZVOUS_TIMEOUT)


def broadcast(group: ProcessGroupGloo, tensor: torch.Tensor) -> None:
    """Broadcast a tensor from rank 0."""
    options = BroadcastOptions()
    options.rootRank = 0
    group.broadcast([tensor], options).wait()


class _Verified:
    """Mixin of a `WeightTransferEngine` that keeps the digest of every tensor that it loads.

    It also drops the fields of messages that the installed version of vLLM does not know: 0.26 wants the packing with
    every update, 0.32 once at the start.
    """

    model: nn.Module

    def start_weight_update(self) -> None:
        """Begin a version."""
        self.digests: dict[str, torch.Tensor] = {}
        super().start_weight_update()  # type: ignore[misc]

    def receive_weights(self, update_info: Any) -> None:
        """Receive one chunk and load it."""
        model, self.model = self.model, _Recorder(self.model, self.digests)
        try:
            super().receive_weights(update_info)  # type: ignore[misc]
        finally:
            self.model = model

    def parse_init_info(self, init_dict: dict[str, Any]) -> Any:
        """The message that opens a connection."""
        return super().parse_init_info(_known(self.init_info_cls, init_dict))  # type: ignore[misc, attr-defined]

    def parse_update_info(self, update_dict: dict[str, Any]) -> Any:
        """The message that describes a chunk."""
        return super().parse_update_info(_known(self.update_info_cls, update_dict))  # type: ignore[misc, attr-defined]


class _Recorder:
    """A model that records the digests of the weights that it loads."""

    def __init__(self, model: nn.Module, digests: dict[str, torch.Tensor]) -> None:
        self._model = model
        self._digests = digests

    def load_weights(self, weights: Weights) -> Any:
        """Record, then load."""
        weights = list(weights)
        self._digests.update((name, tensor_digest(tensor)) for name, tensor in weights)
        return self._model.load_weights(weights)


class NcclEngine(_Verified, NCCLWeightTransferEngine):
    """vLLM's NCCL engine."""


class IpcEngine(_Verified, IPCWeightTransferEngine):
    """vLLM's CUDA IPC engine."""


class _Received(ABC):
    """The part of the engines without a GPU that receives a chunk's bytes; loading is that of vLLM's NCCL engine."""

    model: nn.Module

    @abstractmethod
    def receive_bytes(self, update_info: Any, size: int) -> torch.Tensor:
        """The ``size`` bytes of a chunk."""

    def receive_weights(self, update_info: Any) -> None:
        """Receive one chunk and load it."""
        dtypes = [getattr(torch, name) for name in update_info.dtype_names]
        sizes = [
            dtype.itemsize * torch.Size(shape).numel() for dtype, shape in zip(dtypes, update_info.shapes, strict=True)
        ]
        packed = self.receive_bytes(update_info, sum(sizes))
        self.model.load_weights(unpack_tensor(packed, update_info.names, update_info.shapes, dtypes, sizes))

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Receive one chunk; nothing is asynchronous on a CPU."""
        self.receive_weights(self.parse_update_info(update_info))  # type: ignore[attr-defined]


class GlooEngine(_Verified, _Received, NCCLWeightTransferEngine):
    """The NCCL engine with a Gloo group."""

    model_update_group: Any

    def init_transfer_engine(self, init_info: Any) -> None:
        """Join the group of the sender and this engine's workers."""
        rank = init_info.rank_offset + self.parallel_config.rank
        self.model_update_group = gloo_group(
            init_info.master_address, init_info.master_port, rank, init_info.world_size
        )

    def receive_bytes(self, update_info: Any, size: int) -> torch.Tensor:
        """Take part in the broadcast."""
        packed = torch.empty(size, dtype=torch.uint8)
        broadcast(self.model_update_group, packed)
        return packed

    def shutdown(self) -> None:
        """Leave the group."""
        self.model_update_group = None


@dataclass
class SharedMemoryInit(WeightTransferInitInfo):
    """Nothing has to be agreed on."""


@dataclass
class SharedMemoryUpdate(WeightTransferUpdateInfo):
    """A chunk in a file that sender and engine can map."""

    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]
    path: str


class SharedMemoryEngine(_Verified, _Received, NCCLWeightTransferEngine):
    """The counterpart of CUDA IPC: maps the memory of a sender on the same machine."""

    init_info_cls: Any = SharedMemoryInit
    update_info_cls: Any = SharedMemoryUpdate

    def init_transfer_engine(self, init_info: SharedMemoryInit) -> None:
        """Do nothing."""

    def receive_bytes(self, update_info: SharedMemoryUpdate, size: int) -> torch.Tensor:
        """A copy of the sender's bytes, which the next chunk overwrites."""
        return torch.from_file(update_info.path, shared=False, size=size, dtype=torch.uint8).clone()


class WorkerExtension:
    """Methods that a direct transport adds to vLLM's workers."""

    weight_transfer_engine: Any
    device: torch.device

    def transfer_device(self) -> str:
        """Which device holds this worker's weights: a GPU's UUID, or the machine's name."""
        return device_name(self.device)

    def check_digests(self, expected: Mapping[str, Sequence[int]]) -> None:
        """Compare what was loaded since the start of the update with the sender's digests.

        Raises:
            RunError: a tensor is missing or differs.
        """
        found = digest_values(self.weight_transfer_engine.digests)
        for name in expected.keys() | found.keys():
            if expected.get(name) != found.get(name):
                raise RunError(
                    f"weight {name}: expected digest {expected.get(name)}, found {found.get(name)} after the transfer"
                )


def device_name(device: torch.device) -> str:
    """A GPU's UUID, or the machine's name."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else platform.node()


def shared_file(descriptor: int) -> str:
    """Path by which other processes of this machine map a file without a name."""
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def _known(message: type, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(message)}
    return {name: value for name, value in values.items() if name in names}


ENGINES: dict[str, type[WeightTransferEngine]] = {
    NCCL: NcclEngine,
    IPC: IpcEngine,
    GLOO: GlooEngine,
    SHARED_MEMORY: SharedMemoryEngine,
}
for _name, _engine in ENGINES.items():
    WeightTransferEngineFactory.register_engine(_name, _engine)
