"""The ranks that train one policy: data sharding and reductions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from geovlm_ray.core.balance import balance_by_length
from geovlm_ray.core.schema import SampleGroup


@dataclass(frozen=True)
class Ranks:
    """One rank of ``size``; all ranks must make the same calls in the same order."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, rank: int, size: int, address: str) -> Ranks:
        """Join the process group at rank 0's ``tcp://host:port``; NCCL for GPU tensors, Gloo for CPU tensors."""
        if size > 1:
            backend = "cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, init_method=address, rank=rank, world_size=size)
        return cls(rank, size)

    def shard(self, groups: Sequence[SampleGroup]) -> Sequence[SampleGroup]:
        """This rank's shard of a batch that all ranks hold; shards are balanced by completion tokens."""
        return groups if self.size == 1 else balance_by_length(groups, self.size, _tokens)[self.rank]

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


def _tokens(group: SampleGroup) -> int:
    """Approximate training cost of a group: completion tokens only, since the prompt is not encoded yet."""
    return sum(len(s.token_ids) for s in group.samples)
