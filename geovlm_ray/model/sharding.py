"""A policy over several processes, each of which holds a part of every weight (PyTorch's FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from geovlm_ray.model.forward import base_model


def shard(policy: nn.Module, model: nn.Module, ranks: int, dtype: torch.dtype) -> None:
    """Keep a part of every weight of a policy, whose ``forward`` runs a model; all ranks hold the same weights before.

    Layers are gathered one at a time, in ``dtype``; gradients are averaged over the ranks in fp32. Every forward pass
    of one rank waits for the others' at each layer, so that all have to run the same layers in the same order.
    """
    inner = base_model(model).model
    mesh = init_device_mesh(next(model.parameters()).device.type, (ranks,))
    precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for block in (*inner.visual.blocks, *inner.language_model.layers):
        fully_shard(block, mesh=mesh, mp_policy=precision)
    fully_shard(policy, mesh=mesh, mp_policy=precision, reshard_after_forward=True)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor of which this rank holds a part; every rank has to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@contextmanager
def gathered(policy: nn.Module) -> Iterator[None]:
    """Have all weights of a policy whole for a while; every rank has to."""
    sharded = [module for module in policy.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.reshard()


def shard_like(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Of a tensor that every rank has, the part that this rank holds of a parameter."""
    moved = tensor.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return moved
    return distribute_tensor(moved, parameter.device_mesh, parameter.placements, src_data_rank=None)
