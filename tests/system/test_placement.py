"""On which nodes the actors of a run stand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from actors.cluster import connect
from actors.rollout_pool import RayRollouts
from benchmarks.instant_engine import InstantActor
from geovlm_ray.config import load_config

pytestmark = pytest.mark.slow
NODES, CORES = 2, 8


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[None]:
    """A cluster of two nodes, on each of which all actors would find room."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("RAY_")]:
            patch.delenv(name)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": CORES, "include_dashboard": False})
        for _ in range(NODES - 1):
            nodes.add_node(num_cpus=CORES)
        patch.setenv("RAY_ADDRESS", nodes.address)
        connect()
        yield
        ray.shutdown()
        nodes.shutdown()


@pytest.mark.parametrize(("strategy", "used"), [("pack", 1), ("spread", NODES)])
def test_actors_are_packed_or_spread_as_asked(two_nodes: None, strategy: str, used: int) -> None:
    settings = [f"placement.strategy={strategy}", "placement.rollout.actors=4", f"run.name={strategy}"]
    rollouts = RayRollouts(load_config("demo", settings), Path(), InstantActor)
    where = [a.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()) for a in rollouts.actors]
    assert len(set(ray.get(where))) == used
    rollouts.close()
