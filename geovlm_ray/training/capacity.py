"""Check that the nodes of a cluster have the resources for all actors of a run."""

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
"""Resources of a node, named as in Ray: number of ``CPU`` and ``GPU``, ``memory`` in bytes; missing keys mean 0."""

RESOURCES = (("CPU", "num_cpus", "CPUs", 1), ("GPU", "num_gpus", "GPUs", 1), ("memory", "memory_gb", "GiB", GIB))
"""For each resource: Ray's name, the configuration key, and the unit of that key and its size."""


@dataclass(frozen=True)
class ResourceRequest:
    """The actors of one kind: their number, and the resources that each reserves."""

    name: str
    count: int
    num_cpus: float
    num_gpus: float
    memory_gb: float

    @property
    def bundle(self) -> dict[str, float]:
        """Resources that one actor reserves, named as in Ray."""
        return {resource: getattr(self, key) * size for resource, key, _, size in RESOURCES if getattr(self, key)}


def resource_requests(config: Config) -> list[ResourceRequest]:
    """The resource requests of a run, one per kind of actor."""
    placement = config.placement
    kinds = {
        "rollout": placement.rollout,
        "reward": placement.reward,
        "sbert": placement.sbert,
        "learner": placement.learner,
    }
    return [
        ResourceRequest(name, getattr(kind, "actors", 1), kind.num_cpus, kind.num_gpus, kind.memory_gb)
        for name, kind in kinds.items()
    ]


def this_machine() -> Node:
    """Approximate resources of a Ray cluster started on this machine."""
    import torch

    memory = float(psutil.virtual_memory().available)
    return {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count()), "memory": memory}


def total_resources(nodes: Sequence[Node]) -> Node:
    """The sum of the resources of all nodes."""
    return {resource: sum(node.get(resource, 0) for node in nodes) for resource, *_ in RESOURCES}


def describe_node(node: Node) -> str:
    """A node's resources as text, such as ``8 CPUs, 2 GPUs, 64 GiB``."""
    return ", ".join(f"{round(node.get(resource, 0) / size, 1):g} {unit}" for resource, _, unit, size in RESOURCES)


def check_fits(config: Config, nodes: Sequence[Node]) -> None:
    """Raise RunError if the nodes, assumed to be empty, cannot host all actors at once.

    Checks the sum of all resources, then each kind of actor alone, then all kinds together, since an actor cannot span
    nodes and a fraction of a GPU cannot span GPUs.
    """
    problems = (
        list(_check_totals(config, total_resources(nodes)))
        or list(_check_each_kind(config, nodes))
        or list(_check_all_kinds(config, nodes))
    )
    if problems:
        raise RunError("; ".join(problems))


def _check_totals(config: Config, available: Node) -> Iterator[str]:
    for resource, key, unit, size in RESOURCES:
        requests = [p for p in resource_requests(config) if getattr(p, key)]
        total, found = sum(p.count * getattr(p, key) for p in requests), available[resource] / size
        if total > found + 1e-6:
            parts = ", ".join(f"{p.count} {p.name} x {getattr(p, key):g}" for p in requests)
            keys = [f"placement.{p.name}.{k}" for p in requests for k in (key, "actors") if k == key or p.count > 1]
            yield f"the run requests {total:,g} {unit} ({parts}), found {found:,g}; lower {' or '.join(keys)}"


def _check_each_kind(config: Config, nodes: Sequence[Node]) -> Iterator[str]:
    available = "; ".join(dict.fromkeys(map(describe_node, nodes)))
    node_count = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    for p in resource_requests(config):
        slots = sum(_slots(node, p) for node in nodes)
        if slots < p.count:
            keys = [*(key for _, key, *_ in RESOURCES if getattr(p, key)), *["actors"] * (p.count > 1)]
            yield (
                f"the run requests {p.count} {p.name} x ({_describe(p)}), each on one node, found room for {slots:g} "
                f"on {node_count} ({available}); lower {' or '.join(f'placement.{p.name}.{key}' for key in keys)}"
            )


def _check_all_kinds(config: Config, nodes: Sequence[Node]) -> Iterator[str]:
    """Tries bin packing in every order of the kinds, after each kind was found to fit alone."""
    kinds = [p for p in resource_requests(config) if p.bundle]
    if not any(_packs(order, nodes) for order in itertools.permutations(kinds)):
        actors = ", ".join(f"{p.count} {p.name} x ({_describe(p)})" for p in kinds)
        available = "; ".join(f"{n} x ({node})" for node, n in Counter(map(describe_node, nodes)).items())
        keys = " or ".join(f"placement.{p.name}" for p in kinds)
        yield f"the run's actors ({actors}) fit kind by kind, but not together, on the nodes {available}; lower {keys}"


def _packs(kinds: Sequence[ResourceRequest], nodes: Sequence[Node]) -> bool:
    """Whether all actors fit when placed in this order, each on the fullest node that can host it (best fit)."""
    free = [_Free(node) for node in nodes]
    for p in kinds:
        for _ in range(p.count):
            node = min((f for f in free if f.can_host(p)), key=lambda f: (sum(f.gpus), f.cpus, f.memory), default=None)
            if node is None:
                return False
            node.place(p)
    return True


class _Free:
    """Free resources of a node during packing."""

    def __init__(self, node: Node) -> None:
        self.cpus = node.get("CPU", 0.0)
        self.memory = node.get("memory", 0.0)
        self.gpus = [1.0] * int(node.get("GPU", 0))

    def can_host(self, p: ResourceRequest) -> bool:
        """Whether the node has the resources of one more actor."""
        enough = p.num_cpus <= self.cpus + 1e-6 and p.memory_gb * GIB <= self.memory + 1e-6
        return enough and len(self._devices(p)) == math.ceil(p.num_gpus)

    def place(self, p: ResourceRequest) -> None:
        """Reserve the resources of an actor."""
        self.cpus -= p.num_cpus
        self.memory -= p.memory_gb * GIB
        for device in self._devices(p):
            self.gpus[device] -= min(p.num_gpus, 1.0)

    def _devices(self, p: ResourceRequest) -> list[int]:
        """GPUs for an actor: whole ones, or for a fraction the fullest GPU with enough left."""
        fitting = [i for i, left in enumerate(self.gpus) if left >= min(p.num_gpus, 1.0) - 1e-6]
        return sorted(fitting, key=self.gpus.__getitem__)[: math.ceil(p.num_gpus)]


def _describe(p: ResourceRequest) -> str:
    """The resources of one actor as text."""
    return ", ".join(f"{getattr(p, key):g} {unit}" for _, key, unit, _ in RESOURCES if getattr(p, key))


def _slots(node: Node, p: ResourceRequest) -> float:
    """Number of actors of a kind that an empty node can host, at most ``p.count``."""
    slots = float(p.count)
    for resource, amount in p.bundle.items():
        available = node.get(resource, 0)
        fractional = resource == "GPU" and amount < 1
        slots = min(slots, available * _fits(1, amount) if fractional else _fits(available, amount))
    return slots


def _fits(available: float, amount: float) -> int:
    """How many times ``amount`` fits into ``available``, up to rounding."""
    return math.floor(available / amount + 1e-6)
