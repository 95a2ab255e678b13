"""The ranks that train one policy: data sharding and reductions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from geovlm_ray.core.balance import balance_by_length
from geovlm_ray.core.schema import SampleGroup
from geovlm_ray.model.config import ModelConfig
from geovlm_ray.transport.rendezvous import open_store

T = TypeVar("T")
RENDEZVOUS_TIMEOUT = timedelta(minutes=30)
"""Time in which all ranks must join, whose models load at different speeds."""


@dataclass(frozen=True)
class Ranks:
    """One rank of ``size``; all ranks must make the same calls in the same order."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, rank: int, size: int, address: str) -> Ranks:
        """Join the process group at rank 0's ``host:port``; NCCL for GPU tensors, Gloo for CPU tensors."""
        if size > 1:
            host, _, port = address.rpartition(":")
            store = open_store(host, int(port), rank, size, RENDEZVOUS_TIMEOUT)
            dist.init_process_group(_backend(), store=store, rank=rank, world_size=size)
        return cls(rank, size)

    @classmethod
    def from_environment(cls) -> Ranks:
        """The rank of a process that ``torchrun`` started, on the GPU of its local rank; else a single process."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return SINGLE_PROCESS
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group(_backend())
        return cls(dist.get_rank(), size)

    def shard_rank(self, config: ModelConfig) -> int | None:
        """The rank if weights are sharded, or kept in host memory by the same mechanism; else None."""
        return self.rank if self.size > 1 or config.offload else None

    def ensure_group(self) -> None:
        """Form the process group of a single process, which sharding needs too."""
        if not dist.is_initialized():
            dist.init_process_group(_backend(), store=dist.HashStore(), rank=self.rank, world_size=self.size)

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.all_reduce_max(0)

    def shard(self, groups: Sequence[SampleGroup]) -> Sequence[SampleGroup]:
        """This rank's shard of a batch that all ranks hold; shards are balanced by completion tokens."""
        return groups if self.size == 1 else balance_by_length(groups, self.size, _tokens)[self.rank]

    def padded(self, parts: Sequence[T], filler: T) -> Iterator[tuple[T, bool]]:
        """Yield ``parts``, then ``filler`` until every rank has yielded equally many; False marks the padding.

        A rank with fewer forward passes would block the others, which wait for its shards at every layer.
        """
        for i in range(self.all_reduce_max(len(parts))):
            yield (parts[i], True) if i < len(parts) else (filler, False)

    def all_reduce_max(self, number: int) -> int:
        """Maximum over all ranks."""
        return int(self._reduced([number], dist.ReduceOp.MAX)[0])

    def all_reduce_sum(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Sum of each entry over all ranks."""
        return dict(zip(sums, self._reduced(list(sums.values()), dist.ReduceOp.SUM), strict=True))

    def _reduced(self, values: list[float], operation: dist.ReduceOp.RedOpType) -> list[float]:
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, operation)
        return tensor.tolist()


SINGLE_PROCESS = Ranks()


def _backend() -> str:
    return "cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo"


def _tokens(group: SampleGroup) -> int:
    """Approximate training cost of a group: completion tokens only, since the prompt is not encoded yet."""
    return sum(len(s.token_ids) for s in group.samples)
