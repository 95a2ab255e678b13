"""The direct transports: NCCL and CUDA IPC for GPUs, Gloo and shared memory for CPUs."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from geovlm_ray.transport.connection import Endpoint
from geovlm_ray.transport.direct import BUFFER_BYTES, Channel, DirectTransport

if TYPE_CHECKING:
    from vllm.distributed.weight_transfer.packed_tensor import PackedChunk

PACKING = {"packed": True, "packed_buffer_size_bytes": BUFFER_BYTES, "packed_num_buffers": 1}


class GroupChannel(Channel):
    """A process group of the sender, rank 0, and the workers of one engine; a chunk is one broadcast."""

    group: Any = None

    def open_message(self, host: str, workers: int) -> dict[str, Any]:
        """Where the group meets."""
        with socket.socket() as free:
            free.bind((host, 0))
            port = free.getsockname()[1]
        self.address = {"master_address": host, "master_port": port, "world_size": 1 + workers}
        return {**self.address, "rank_offset": 1, **PACKING}

    def describe(self, chunk: PackedChunk) -> dict[str, Any]:
        """How the chunk is packed."""
        return PACKING


class NcclChannel(GroupChannel):
    """NCCL, between GPUs."""

    def open(self) -> None:
        """Join the group."""
        import torch
        from vllm.distributed.weight_transfer.nccl_common import stateless_init_process_group

        address = self.address
        self.group = stateless_init_process_group(
            address["master_address"], address["master_port"], 0, address["world_size"], torch.cuda.current_device()
        )

    def transmit(self, chunk: PackedChunk) -> None:
        """Start the broadcast."""
        import torch

        self.group.broadcast(chunk.packed_tensor, src=0, stream=torch.cuda.current_stream())

    def close(self) -> None:
        """Leave the group; a broadcast in progress is aborted."""
        if self.group is not None:
            self.group.destroy()
            self.group = None


class GlooChannel(GroupChannel):
    """Gloo, between CPUs."""

    def open(self) -> None:
        """Join the group."""
        from geovlm_ray.transport.vllm_workers import gloo_group

        address = self.address
        self.group = gloo_group(address["master_address"], address["master_port"], 0, address["world_size"])

    def transmit(self, chunk: PackedChunk) -> None:
        """Broadcast the chunk."""
        from geovlm_ray.transport.vllm_workers import broadcast

        broadcast(self.group, chunk.packed_tensor)

    def close(self) -> None:
        """Leave the group."""
        self.group = None


class IpcChannel(Channel):
    """CUDA IPC, on one GPU: the engine opens the sender's memory and copies from it."""

    def open_message(self, host: str, workers: int) -> dict[str, Any]:
        """How chunks are packed."""
        return PACKING

    def open(self) -> None:
        """Do nothing."""

    def describe(self, chunk: PackedChunk) -> dict[str, Any]:
        """The handle of the chunk's memory."""
        import torch
        from torch.multiprocessing.reductions import reduce_tensor

        from geovlm_ray.transport.vllm_workers import device_name

        device = chunk.packed_tensor.device
        # Frees the memory of earlier chunks that the engine has released.
        torch.cuda.ipc_collect()
        _, handle = reduce_tensor(chunk.packed_tensor)
        # The engine reads the memory without a stream that orders it.
        torch.cuda.current_stream(device).synchronize()
        return {**PACKING, "ipc_handles": {device_name(device): handle}, "tensor_sizes": chunk.tensor_sizes}

    def transmit(self, chunk: PackedChunk) -> None:
        """Do nothing: the engine copies the chunk from the sender's memory."""

    def close(self) -> None:
        """Do nothing."""


class SharedMemoryChannel(Channel):
    """Shared memory, on one machine: the counterpart of CUDA IPC on CPUs."""

    def __init__(self) -> None:
        self._file = os.memfd_create("geovlm-weights")

    def open_message(self, host: str, workers: int) -> dict[str, Any]:
        """Nothing has to be agreed on."""
        return {}

    def open(self) -> None:
        """Do nothing."""

    def describe(self, chunk: PackedChunk) -> dict[str, Any]:
        """Write the chunk into the shared file, and name it."""
        import torch

        from geovlm_ray.transport.vllm_workers import shared_file

        path, size = shared_file(self._file), len(chunk.packed_tensor)
        os.ftruncate(self._file, size)
        torch.from_file(path, shared=True, size=size, dtype=torch.uint8).copy_(chunk.packed_tensor)
        return {"path": path}

    def transmit(self, chunk: PackedChunk) -> None:
        """Do nothing: the engine maps the file."""

    def close(self) -> None:
        """Free the memory."""
        os.close(self._file)


class Nccl(DirectTransport):
    """By NCCL, from the GPUs of the learner to the engines' own."""

    vllm_backend = "geovlm_nccl"
    channel = NcclChannel


class Gloo(DirectTransport):
    """By Gloo, between processes on CPUs."""

    vllm_backend = "geovlm_gloo"
    channel = GlooChannel


class Ipc(DirectTransport):
    """By CUDA IPC, between processes that share a GPU."""

    vllm_backend = "geovlm_ipc"
    channel = IpcChannel

    def served(self, rank: int, ranks: int, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """The engines on this rank's GPU."""
        import torch

        from geovlm_ray.transport.vllm_workers import device_name

        own = device_name(torch.device("cuda", torch.cuda.current_device()))
        return [endpoint for endpoint in endpoints if set(endpoint.devices) == {own}]


class SharedMemory(DirectTransport):
    """By shared memory, between processes on one machine."""

    vllm_backend = "geovlm_shared_memory"
    channel = SharedMemoryChannel
