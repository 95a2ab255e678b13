"""Whether the nodes of a cluster hold all actors of a run."""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psutil

from geovlm_ray.config import Config
from geovlm_ray.core.errors import RunError
from geovlm_ray.core.placement import GIB

Node = Mapping[str, float]
"""What a node has: ``CPU`` and ``GPU`` by number, ``memory`` in bytes; of what is not named it has none."""

SHARES = (("CPU", "num_cpus", "CPUs", 1), ("GPU", "num_gpus", "GPUs", 1), ("memory", "memory_gb", "GiB", GIB))
"""Of each resource Ray's name, the key in the configuration, and the unit of that key, by its name and its size."""


@dataclass(frozen=True)
class ResourceRequest:
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


def resource_requests(config: Config) -> list[ResourceRequest]:
    """The actors of a run."""
    kinds = config.placement
    shares = {"rollout": kinds.rollout, "reward": kinds.reward, "sbert": kinds.sbert, "learner": kinds.learner}
    return [
        ResourceRequest(name, getattr(share, "actors", 1), share.num_cpus, share.num_gpus, share.memory_gb)
        for name, share in shares.items()
    ]


def this_machine() -> Node:
    """About what a cluster that is started here would have."""
    import torch

    memory = float(psutil.virtual_memory().available)
    return {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count()), "memory": memory}


def total_resources(nodes: Sequence[Node]) -> Node:
    """What all nodes have."""
    return {resource: sum(node.get(resource, 0) for node in nodes) for resource, *_ in SHARES}


def describe_node(node: Node) -> str:
    """What a node has, in words."""
    return ", ".join(f"{round(node.get(resource, 0) / size, 1):g} {unit}" for resource, _, unit, size in SHARES)


def check_fits(config: Config, nodes: Sequence[Node]) -> None:
    """Raise RunError where nodes, even empty ones, do not hold all actors at once.

    Together they must have what all actors ask for. No actor is shared by two nodes, and no part of a GPU by two GPUs,
    so there must be places enough for the actors of each kind, and for all kinds beside each other.
    """
    wrong = (
        list(_short(config, total_resources(nodes)))
        or list(_without_place(config, nodes))
        or list(_apart(config, nodes))
    )
    if wrong:
        raise RunError("; ".join(wrong))


def _short(config: Config, there: Node) -> Iterator[str]:
    for resource, key, unit, size in SHARES:
        asked = [p for p in resource_requests(config) if getattr(p, key)]
        total, found = sum(p.count * getattr(p, key) for p in asked), there[resource] / size
        if total > found + 1e-6:
            parts = ", ".join(f"{p.count} {p.name} x {getattr(p, key):g}" for p in asked)
            keys = [f"placement.{p.name}.{k}" for p in asked for k in (key, "actors") if k == key or p.count > 1]
            yield f"the run asks for {total:,g} {unit} ({parts}), found {found:,g}; lower {' or '.join(keys)}"


def _without_place(config: Config, nodes: Sequence[Node]) -> Iterator[str]:
    there = "; ".join(dict.fromkeys(map(describe_node, nodes)))
    where = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    for p in resource_requests(config):
        places = sum(_places(node, p) for node in nodes)
        if places < p.count:
            keys = [*(key for _, key, *_ in SHARES if getattr(p, key)), *["actors"] * (p.count > 1)]
            yield (
                f"the run asks for {p.count} {p.name} x ({_share(p)}), each on one node, found room for {places:g} on "
                f"{where} ({there}); lower {' or '.join(f'placement.{p.name}.{key}' for key in keys)}"
            )


def _apart(config: Config, nodes: Sequence[Node]) -> Iterator[str]:
    """What is wrong where each kind has places enough, but not all of them together."""
    kinds = [p for p in resource_requests(config) if p.bundle]
    if not any(_packs(order, nodes) for order in itertools.permutations(kinds)):
        actors = ", ".join(f"{p.count} {p.name} x ({_share(p)})" for p in kinds)
        there = "; ".join(f"{n} x ({node})" for node, n in Counter(map(describe_node, nodes)).items())
        keys = " or ".join(f"placement.{p.name}" for p in kinds)
        yield f"the run's actors ({actors}) fit by kind, but not all together, on the nodes {there}; lower {keys}"


def _packs(kinds: Sequence[ResourceRequest], nodes: Sequence[Node]) -> bool:
    """Whether all actors find room when they are placed kind by kind, each on the fullest node that holds it."""
    free = [_Free(node) for node in nodes]
    for p in kinds:
        for _ in range(p.count):
            room = min((f for f in free if f.holds(p)), key=lambda f: (sum(f.gpus), f.cpus, f.memory), default=None)
            if room is None:
                return False
            room.take(p)
    return True


class _Free:
    """What is left of a node while actors are packed."""

    def __init__(self, node: Node) -> None:
        self.cpus = node.get("CPU", 0.0)
        self.memory = node.get("memory", 0.0)
        self.gpus = [1.0] * int(node.get("GPU", 0))

    def holds(self, p: ResourceRequest) -> bool:
        """Whether there is room for an actor."""
        enough = p.num_cpus <= self.cpus + 1e-6 and p.memory_gb * GIB <= self.memory + 1e-6
        return enough and len(self._devices(p)) == math.ceil(p.num_gpus)

    def take(self, p: ResourceRequest) -> None:
        """Place an actor."""
        self.cpus -= p.num_cpus
        self.memory -= p.memory_gb * GIB
        for device in self._devices(p):
            self.gpus[device] -= min(p.num_gpus, 1.0)

    def _devices(self, p: ResourceRequest) -> list[int]:
        """GPUs that an actor would take: whole ones, or a part of the fullest that has as much."""
        fitting = [i for i, left in enumerate(self.gpus) if left >= min(p.num_gpus, 1.0) - 1e-6]
        return sorted(fitting, key=self.gpus.__getitem__)[: math.ceil(p.num_gpus)]


def _share(p: ResourceRequest) -> str:
    """What an actor reserves, in words."""
    return ", ".join(f"{getattr(p, key):g} {unit}" for _, key, unit, _ in SHARES if getattr(p, key))


def _places(node: Node, p: ResourceRequest) -> float:
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
