"""Checks of every node of the cluster, for ``geovlm-ray doctor``."""

from __future__ import annotations

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.cluster import connect
from geovlm_ray.observability.doctor import Finding, check_environment

TIMEOUT_S = 120.0
"""Time for the checks of a node, which import torch there."""


def check_nodes() -> dict[str, list[Finding]]:
    """The findings of `geovlm_ray.observability.doctor.check_environment` on every live node, by its address.

    The first finding of a node has its resources in Ray.

    Raises:
        RunError: the cluster cannot be reached.
    """
    connect()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    calls = {node["NodeID"]: _start(node["NodeID"]) for node in nodes}
    return {
        f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})": [
            _resources(node["Resources"]),
            *_result(calls[node["NodeID"]]),
        ]
        for node in nodes
    }


def _start(node: str) -> ray.ObjectRef:
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0, max_retries=0)(check_environment).options(scheduling_strategy=here).remote()


def _result(call: ray.ObjectRef) -> list[Finding]:
    try:
        findings: list[Finding] = ray.get(call, timeout=TIMEOUT_S)
        return findings
    except (ray.exceptions.RayError, ImportError) as error:
        reason = " ".join(str(error).split())
        return [Finding("geovlm_ray", False, f"expected checks that run on this node, found: {reason[-400:]}")]


def _resources(resources: dict[str, float]) -> Finding:
    memory = resources.get("memory", 0) / 2**30
    text = f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs, {memory:.0f} GiB for Ray"
    return Finding("resources", True, text)
