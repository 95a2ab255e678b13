"""FSDP2 sharding of a policy over several ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from geovlm_ray.model.families import base_model, family_of


def shard(policy: nn.Module, model: nn.Module, dtype: torch.dtype, device: torch.device, *, offload: bool) -> None:
    """Shard the weights of ``policy``, whose ``forward`` runs ``model``, over the devices of all ranks.

    Rank 0 holds the weights before; the other ranks hold memory of the same size that they have not written to. Layers
    are gathered one at a time in ``dtype``; gradients are averaged over the ranks in fp32. A forward pass synchronizes
    the ranks at every layer, so all ranks must run the same layers in the same order. With ``offload``, shards,
    gradients and optimizer states stay in host memory.
    """
    base = base_model(model)
    # Sharding replaces the parameters, so that these would otherwise be freed.
    whole = {name: parameter.detach() for name, parameter in model.named_parameters()} if dist.get_rank() == 0 else {}
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    settings: dict[str, Any] = {
        "mesh": mesh,
        "mp_policy": MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32),
        "offload_policy": CPUOffloadPolicy(pin_memory=device.type == "cuda") if offload else OffloadPolicy(),
    }
    for block in family_of(base).sharded_layers(base):
        fully_shard(block, **settings)
    fully_shard(policy, **settings, reshard_after_forward=True)
    for name, parameter in model.named_parameters():
        parameter.detach().copy_(scattered(parameter, whole.pop(name, None)))


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The unsharded tensor; a collective operation that every rank must call."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@contextmanager
def unsharded_params(policy: nn.Module) -> Iterator[None]:
    """Keep the full weights on every rank inside the context; a collective operation that every rank must call."""
    sharded = [module for module in policy.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.reshard()


def scattered(parameter: torch.Tensor, tensor: torch.Tensor | None) -> torch.Tensor:
    """A full tensor that rank 0 holds, with the dtype, device and sharding of ``parameter``; other ranks pass None.

    A collective operation that every rank must call.
    """
    if not isinstance(parameter, DTensor):
        assert tensor is not None
        return tensor.to(parameter.device, parameter.dtype)
    if tensor is None:
        tensor = torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device)
    whole = tensor.to(parameter.device, parameter.dtype)
    part = distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=0)
    # With offloading the parameter is in host memory, not on the device of the mesh.
    return part.to(parameter.device)


def shard_like(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """This rank's shard of a full tensor that every rank holds, sharded like ``parameter``."""
    moved = tensor.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return moved
    return distribute_tensor(moved, parameter.device_mesh, parameter.placements, src_data_rank=None)
