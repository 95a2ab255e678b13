"""Work dealt out in shares of about the same size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def balance_by_length(items: Sequence[Item], shares: int, size: Callable[[Item], int]) -> list[list[Item]]:
    """The items in so many shares, each of about the same size, its largest items first.

    The largest item goes first, always to the share with the least so far (Graham's rule, SIAM J. Appl. Math. 17,
    1969: at most 4/3 of the best possible).
    """
    dealt: list[list[Item]] = [[] for _ in range(shares)]
    sizes = [0] * shares
    for item in sorted(items, key=size, reverse=True):
        least = sizes.index(min(sizes))
        dealt[least].append(item)
        sizes[least] += size(item)
    return dealt
