"""Whether the nodes of a cluster hold all actors of a run."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psutil

from geovlm_ray.config import Config
from geovlm_ray.errors import RunError
from geovlm_ray.placement import GIB

Node = Mapping[str, float]
"""What a node has: ``CPU`` and ``GPU`` by number, ``memory`` in bytes; of what is not named it has none."""

SHARES = (("CPU", "num_cpus", "CPUs", 1), ("GPU", "num_gpus", "GPUs", 1), ("memory", "memory_gb", "GiB", GIB))
"""Of each resource Ray's name, the key in the configuration, and the unit of that key, by its name and its size."""


@dataclass(frozen=True)
class Placement:
    """One kind of actor: how many, and what each reserves."""

    name: str
    count: int
    num_cpus: float
    num_gpus: float
    memory_gb: float

    @property
    def bundle(self) -> dict[str, float]:
        """What each reserves of a node."""
        return {resource: getattr(self, key) * size for resource, key, _, size in SHARES if getattr(self, key)}


def placement(config: Config) -> list[Placement]:
    """The actors of a run."""
    kinds = config.placement
    shares = {"rollout": kinds.rollout, "reward": kinds.reward, "sbert": kinds.sbert, "learner": kinds.learner}
    return [
        Placement(name, getattr(share, "actors", 1), share.num_cpus, share.num_gpus, share.memory_gb)
        for name, share in shares.items()
    ]


def this_machine() -> Node:
    """About what a cluster that is started here would have."""
    import torch

    memory = float(psutil.virtual_memory().available)
    return {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count()), "memory": memory}


def together(nodes: Sequence[Node]) -> Node:
    """What all nodes have."""
    return {resource: sum(node.get(resource, 0) for node in nodes) for resource, *_ in SHARES}


def described(node: Node) -> str:
    """What a node has, in words."""
    return ", ".join(f"{round(node.get(resource, 0) / size, 1):g} {unit}" for resource, _, unit, size in SHARES)


def check_fits(config: Config, nodes: Sequence[Node]) -> None:
    """Raise RunError where nodes, even empty ones, do not hold all actors at once.

    Together they must have what all actors ask for. No actor is shared by two nodes, and no part of a GPU by two GPUs,
    so there must be places enough for the actors of each kind as well.
    """
    wrong = list(_short(config, together(nodes))) or list(_without_place(config, nodes))
    if wrong:
        raise RunError("; ".join(wrong))


def _short(config: Config, there: Node) -> Iterator[str]:
    for resource, key, unit, size in SHARES:
        asked = [p for p in placement(config) if getattr(p, key)]
        total, found = sum(p.count * getattr(p, key) for p in asked), there[resource] / size
        if total > found + 1e-6:
            parts = ", ".join(f"{p.count} {p.name} x {getattr(p, key):g}" for p in asked)
            keys = [f"placement.{p.name}.{k}" for p in asked for k in (key, "actors") if k == key or p.count > 1]
            yield f"the run asks for {total:,g} {unit} ({parts}), found {found:,g}; lower {' or '.join(keys)}"


def _without_place(config: Config, nodes: Sequence[Node]) -> Iterator[str]:
    there = "; ".join(dict.fromkeys(map(described, nodes)))
    where = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    for p in placement(config):
        places = sum(_places(node, p) for node in nodes)
        if places < p.count:
            share = ", ".join(f"{getattr(p, key):g} {unit}" for _, key, unit, _ in SHARES if getattr(p, key))
            keys = [*(key for _, key, *_ in SHARES if getattr(p, key)), *["actors"] * (p.count > 1)]
            yield (
                f"the run asks for {p.count} {p.name} x ({share}), each on one node, found room for {places:g} on "
                f"{where} ({there}); lower {' or '.join(f'placement.{p.name}.{key}' for key in keys)}"
            )


def _places(node: Node, p: Placement) -> float:
    """How many actors of a kind an empty node holds, up to all of them."""
    places = float(p.count)
    for resource, each in p.bundle.items():
        there = node.get(resource, 0)
        split = resource == "GPU" and each < 1
        places = min(places, there * _times(1, each) if split else _times(there, each))
    return places


def _times(there: float, each: float) -> int:
    """How often a share is there."""
    return math.floor(there / each + 1e-6)
