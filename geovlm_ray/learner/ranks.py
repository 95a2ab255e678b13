"""The processes that train one policy together: which groups are whose, and what they tell each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from geovlm_ray.core.balance import balance_by_length
from geovlm_ray.core.schema import SampleGroup


@dataclass(frozen=True)
class Ranks:
    """One process's place among ``size``, which all make the same calls in the same order."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, rank: int, size: int, address: str) -> Ranks:
        """Meet the others at ``tcp://host:port`` of rank 0; by NCCL with a GPU each, else by Gloo."""
        if size > 1:
            backend = "cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, init_method=address, rank=rank, world_size=size)
        return cls(rank, size)

    def shard(self, groups: Sequence[SampleGroup]) -> Sequence[SampleGroup]:
        """This rank's part of a batch that all ranks have; all parts are about as long."""
        return groups if self.size == 1 else balance_by_length(groups, self.size, _tokens)[self.rank]

    def all_reduce_max(self, number: int) -> int:
        """The largest of the ranks' numbers."""
        return int(self._reduced([number], dist.ReduceOp.MAX)[0])

    def all_reduce_sum(self, sums: Mapping[str, float]) -> dict[str, float]:
        """The ranks' sums together."""
        return dict(zip(sums, self._reduced(list(sums.values()), dist.ReduceOp.SUM), strict=True))

    def _reduced(self, values: list[float], operation: dist.ReduceOp.RedOpType) -> list[float]:
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, operation)
        return tensor.tolist()


SINGLE_PROCESS = Ranks()


def _tokens(group: SampleGroup) -> int:
    """About what a group's passes cost, without its prompt, which is not encoded yet."""
    return sum(len(s.token_ids) for s in group.samples)
