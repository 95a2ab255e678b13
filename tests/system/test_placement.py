"""On which nodes the actors of a run stand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from actors.cluster import connect, start_actors, wait_for_room
from actors.learner import RayLearner
from actors.rollout_pool import RayRollouts
from benchmarks.instant_engine import InstantActor
from benchmarks.toy_policy import ToyLearnerActor
from geovlm_ray.config import RunConfig, load_config
from geovlm_ray.data.sampler import SceneStream
from geovlm_ray.errors import LostError, RunError
from geovlm_ray.preflight import Ready
from geovlm_ray.rewards.config import SbertConfig
from tests.unit.test_deploy import KUBERAY, read

pytestmark = pytest.mark.slow
NODES, CORES = 2, 8


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


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[None]:
    """A cluster of two nodes, on each of which all actors would find room."""
    with cluster(*[{"num_cpus": CORES}] * NODES):
        yield


def kuberay_nodes() -> list[dict[str, float]]:
    """The pods of the shipped KubeRay cluster, the learner's first: rollout actors would take it if they came first."""
    found = []
    for group in read(KUBERAY / "raycluster.yaml")["spec"]["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        pod = {"num_cpus": float(limits["cpu"]), "num_gpus": float(limits.get("nvidia.com/gpu", 0))}
        found += [pod] * group["minReplicas"]
    return found[::-1]


@pytest.mark.parametrize(("strategy", "used"), [("pack", 1), ("spread", NODES)])
def test_actors_are_packed_or_spread_as_asked(two_nodes: None, strategy: str, used: int) -> None:
    settings = [f"placement.strategy={strategy}", "placement.rollout.actors=4", f"run.name={strategy}"]
    rollouts = RayRollouts(load_config("demo", settings), Path(), InstantActor)
    where = [a.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()) for a in rollouts.actors]
    assert len(set(ray.get(where))) == used
    rollouts.close()


def test_a_learner_larger_than_every_node_is_refused(two_nodes: None) -> None:
    with pytest.raises(RunError, match=r"1 learner x \(12 CPUs\), each on one node, found room for 0 on 2 nodes"):
        wait_for_room(load_config("demo", ["placement.learner.num_cpus=12"]))
    wait_for_room(load_config("demo", [f"placement.learner.num_cpus={CORES}"]))


def test_a_learner_whose_room_another_job_holds_ends_the_run(two_nodes: None) -> None:
    rivals = [ray.remote(InstantActor).options(num_cpus=6).remote(load_config("demo"), Path()) for _ in range(NODES)]
    ray.get([rival.__ray_ready__.remote() for rival in rivals])
    settings = [f"placement.learner.num_cpus={CORES}", "rollout.stall_s=2", "run.name=late"]
    with pytest.raises(LostError, match=r"not every learner actor has started within 2 s.*ray status"):
        RayLearner(load_config("demo", settings), Path())


class IdleSbertActor:
    """Stands where the SBERT actor would, whose model would ask for a real GPU."""

    def __init__(self, config: SbertConfig, run: RunConfig) -> None:
        pass


def test_the_papers_run_is_placed_on_the_shipped_kuberay_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.reward.SbertActor", IdleSbertActor)
    config = load_config("geovlm-r1", [f"run.dir={tmp_path}", "rollout.stall_s=60"])
    ready = Ready(Path(), SceneStream(0), ("region_captioning",))
    with cluster({"num_cpus": 0}, *kuberay_nodes()):
        rollouts, rewards, learner = start_actors(config, ready, InstantActor, ToyLearnerActor)
        assert rewards.sbert is not None
        actors = [*learner.actors, *rollouts.actors, rewards.sbert, *rewards.actors]
        started = [actor.__ray_ready__.remote() for actor in actors]
        assert len(ray.wait(started, num_returns=len(started), timeout=120)[0]) == 14
