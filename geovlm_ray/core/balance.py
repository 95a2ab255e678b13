"""Load balancing: items partitioned into shares of similar total size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def balance_by_length(items: Sequence[Item], shares: int, size: Callable[[Item], int]) -> list[list[Item]]:
    """Partition items into ``shares`` lists of similar total size, each sorted by decreasing size.

    Greedy longest-processing-time rule: items are assigned in order of decreasing size to the share with the smallest
    total (Graham, SIAM J. Appl. Math. 17, 1969: the largest share is at most 4/3 of the optimum).
    """
    partition: list[list[Item]] = [[] for _ in range(shares)]
    sizes = [0] * shares
    for item in sorted(items, key=size, reverse=True):
        smallest = sizes.index(min(sizes))
        partition[smallest].append(item)
        sizes[smallest] += size(item)
    return partition
