"""Simulated multi-node Ray clusters on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import ray
from ray.cluster_utils import Cluster

from actors.cluster import connect


@contextmanager
def cluster(head: dict[str, float], *workers: dict[str, float]) -> Iterator[Cluster]:
    """A cluster of nodes with the given logical resources; clears any Ray settings from the environment.

    Ends the cluster that this process is connected to, if any.
    """
    ray.shutdown()
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("RAY_")]:
            patch.delenv(name)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        ray_cluster = Cluster(initialize_head=True, head_node_args={**head, "include_dashboard": False})
        try:
            for worker in workers:
                ray_cluster.add_node(**worker)
            patch.setenv("RAY_ADDRESS", ray_cluster.address)
            connect()
            yield ray_cluster
        finally:
            ray.shutdown()
            ray_cluster.shutdown()
