"""Check that the nodes of a cluster have the resources for all actors of a run."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import psutil

from geovlm_ray.config import Config
from geovlm_ray.core.errors import RunError
from geovlm_ray.core.placement import GIB

Node = Mapping[str, float]
"""Resources of a node, named as in Ray: number of ``CPU`` and ``GPU``, ``memory`` in bytes; missing keys mean 0."""

RESOURCES = (("CPU", "num_cpus", "CPUs", 1), ("GPU", "num_gpus", "GPUs", 1), ("memory", "memory_gb", "GiB", GIB))
"""For each resource: Ray's name, the configuration key, and the unit of that key and its size."""

KINDS = ("learner", "rollout", "sbert", "reward")
"""The kinds of actors, fields of `PlacementConfig`, the largest first."""


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


def resource_requests(config: Config, kinds: Sequence[str] = KINDS) -> list[ResourceRequest]:
    """The resource requests of a run, one per kind of actor.

    With ``placement.colocate`` those of the learner include those of the rollout actor that shares its GPU.
    """
    requests = {}
    for kind in kinds:
        resources = getattr(config.placement, kind)
        requests[kind] = ResourceRequest(
            kind, getattr(resources, "actors", 1), resources.num_cpus, resources.num_gpus, resources.memory_gb
        )
    if config.placement.colocate and {"learner", "rollout"} <= requests.keys():
        learner, rollout = requests["learner"], requests.pop("rollout")
        sums = {key: getattr(learner, key) + getattr(rollout, key) for _, key, *_ in RESOURCES}
        requests["learner"] = replace(learner, **sums)
    return list(requests.values())


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
    """Raise RunError if the nodes, even if they are empty, cannot host all actors.

    Checks the sum of all resources, then each kind of actor alone, since an actor cannot span nodes and a fraction of a
    GPU cannot span GPUs. Whether all kinds fit together is for Ray to find out, when it reserves their resources.
    """
    problems = list(_check_totals(config, total_resources(nodes))) or list(_check_each_kind(config, nodes))
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


def describe_requests(requests: Sequence[ResourceRequest]) -> str:
    """Number and resources of actors as text, such as ``2 rollout x (1 CPUs, 1 GPUs)``."""
    return ", ".join(f"{p.count} {p.name} x ({_describe(p)})" for p in requests)


def _describe(p: ResourceRequest) -> str:
    """The resources of one actor as text."""
    return ", ".join(f"{getattr(p, key):g} {unit}" for _, key, unit, _ in RESOURCES if getattr(p, key))


def _slots(node: Node, p: ResourceRequest) -> float:
    """Number of actors of a kind that an empty node can host, at most ``p.count``."""
    slots = float(p.count)
    for resource, amount in p.bundle.items():
        # A fraction of a GPU has to fit into each single one.
        units, size = (node.get(resource, 0), 1) if resource == "GPU" and amount < 1 else (1, node.get(resource, 0))
        slots = min(slots, units * math.floor(size / amount + 1e-6))
    return slots
