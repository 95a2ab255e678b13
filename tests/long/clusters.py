"""Clusters of several nodes on this machine, which say that they have so much."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import ray
from ray.cluster_utils import Cluster

from actors.cluster import connect


@contextmanager
def cluster(head: dict[str, float], *workers: dict[str, float]) -> Iterator[None]:
    """A cluster of nodes that say that they have so much."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("RAY_")]:
            patch.delenv(name)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        nodes = Cluster(initialize_head=True, head_node_args={**head, "include_dashboard": False})
        try:
            for worker in workers:
                nodes.add_node(**worker)
            patch.setenv("RAY_ADDRESS", nodes.address)
            connect()
            yield
        finally:
            ray.shutdown()
            nodes.shutdown()
