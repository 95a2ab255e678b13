"""Placement of actors on nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from actors.cluster import wait_for_capacity
from actors.learner import RayLearner
from actors.rollout_pool import RayRollouts
from benchmarks.instant_engine import InstantActor
from geovlm_ray.config import load_config
from geovlm_ray.core.errors import LostError, RunError
from tests.long.clusters import cluster

pytestmark = pytest.mark.slow
NODES, CORES = 2, 8


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[None]:
    """A cluster of two nodes, each large enough for all actors."""
    with cluster(*[{"num_cpus": CORES}] * NODES):
        yield


@pytest.mark.parametrize(("strategy", "used"), [("pack", 1), ("spread", NODES)])
def test_actors_follow_the_placement_strategy(two_nodes: None, strategy: str, used: int) -> None:
    settings = [f"placement.strategy={strategy}", "placement.rollout.actors=4", f"run.name={strategy}"]
    rollouts = RayRollouts(load_config("demo", settings), Path(), InstantActor)
    node_ids = [a.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()) for a in rollouts.actors]
    assert len(set(ray.get(node_ids))) == used
    rollouts.close()


def test_learner_larger_than_every_node_is_rejected(two_nodes: None) -> None:
    with pytest.raises(RunError, match=r"1 learner x \(12 CPUs\), each on one node, found room for 0 on 2 nodes"):
        wait_for_capacity(load_config("demo", ["placement.learner.num_cpus=12"]))
    wait_for_capacity(load_config("demo", [f"placement.learner.num_cpus={CORES}"]))


def test_unschedulable_learner_fails_the_run(two_nodes: None) -> None:
    other_actors = [
        ray.remote(InstantActor).options(num_cpus=6).remote(load_config("demo"), Path()) for _ in range(NODES)
    ]
    ray.get([actor.__ray_ready__.remote() for actor in other_actors])
    settings = [f"placement.learner.num_cpus={CORES}", "rollout.stall_s=2", "run.name=late"]
    with pytest.raises(LostError, match=r"learner actors: expected at least 1 to start.*ray status"):
        RayLearner(load_config("demo", settings), Path())
