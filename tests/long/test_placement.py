"""Placement of actors on nodes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from actors.cluster import start_actors
from actors.learner import LearnerActor, RayLearner
from actors.placement import Reservation, nodes
from actors.rollout_pool import RayRollouts
from benchmarks.instant_engine import InstantActor
from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import ConfigError, LostError, RunError
from geovlm_ray.data.sampler import SceneStream
from geovlm_ray.training.capacity import KINDS
from geovlm_ray.training.preflight import Ready
from tests.long.clusters import cluster
from tests.system.test_rollout_pool import PROMPTS

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
    config = load_config("demo", settings)
    reservation = Reservation(config, "rollout")
    reservation.wait()
    rollouts = RayRollouts(config, Path(), InstantActor, reservation)
    node_ids = [a.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()) for a in rollouts.actors]
    assert len(set(ray.get(node_ids))) == used
    rollouts.close()
    reservation.release()


def test_learner_larger_than_every_node_is_rejected(two_nodes: None) -> None:
    with pytest.raises(RunError, match=r"1 learner x \(12 CPUs\), each on one node, found room for 0 on 2 nodes"):
        Reservation(load_config("demo", ["placement.learner.num_cpus=12"]), *KINDS).wait()


def test_actors_are_placed_all_or_none(two_nodes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.placement.GRACE_S", 2)
    # Kind by kind they fit, but not together: the learner takes one node, two rollout actors need one each.
    settings = ["placement.learner.num_cpus=6", "placement.rollout.actors=2", "placement.rollout.num_cpus=5"]
    settings += ["placement.reward.num_cpus=0"]
    with pytest.raises(RunError, match=r"2 rollout x \(5 CPUs\).* do not fit together on the nodes"):
        Reservation(load_config("demo", settings), *KINDS).wait()
    first = Reservation(load_config("demo", settings), "learner")
    first.wait()
    second = Reservation(load_config("demo", [*settings, "placement.learner.num_cpus=8"]), "learner")
    second.wait()
    with pytest.raises(RunError, match="on what other jobs leave of them"):
        Reservation(load_config("demo", settings), "learner").wait()
    first.release()
    again = Reservation(load_config("demo", settings), "learner")
    again.wait()
    for reservation in (second, again):
        reservation.release()


def test_unschedulable_learner_fails_the_run(two_nodes: None) -> None:
    other_actors = [
        ray.remote(InstantActor).options(num_cpus=6).remote(load_config("demo"), Path()) for _ in range(NODES)
    ]
    ray.get([actor.__ray_ready__.remote() for actor in other_actors])
    settings = [f"placement.learner.num_cpus={CORES}", "rollout.stall_s=2", "run.name=late"]
    with pytest.raises(LostError, match=r"learner actors: expected at least 1 to start.*ray status"):
        RayLearner(load_config("demo", settings), Path())


def test_lost_node_is_replaced_and_not_searched_for_without_pause() -> None:
    with cluster({"num_cpus": 0}, {"num_cpus": 1}, {"num_cpus": 1}) as ray_cluster:
        config = load_config("demo", ["placement.rollout.actors=2", "placement.rollout.num_cpus=1", "run.name=lost"])
        reservation = Reservation(config, "rollout")
        reservation.wait()
        rollouts = RayRollouts(config, Path(), InstantActor, reservation)
        rollouts.update_weights(lambda endpoints: iter([1]))
        rollouts.slots.ready(at_least=2)
        (control,) = ray_cluster.head_node.all_processes["gcs_server"]
        gcs = psutil.Process(control.process.pid)
        before = gcs_cpu_seconds(gcs, rollouts)
        ray_cluster.remove_node(next(iter(ray_cluster.worker_nodes)), allow_graceful=False)
        while len(nodes()) == 3:
            assert len(rollouts.generate(PROMPTS)) == len(PROMPTS)
        assert gcs_cpu_seconds(gcs, rollouts) < 10 * before + 0.5
        ray_cluster.add_node(num_cpus=1)
        assert len(rollouts.slots.ready(at_least=2)) == 2
        rollouts.close()
        reservation.release()


def gcs_cpu_seconds(gcs: psutil.Process, rollouts: RayRollouts) -> float:
    """CPU time that a cluster's control process uses while 200 batches are sampled."""
    start = gcs.cpu_times()
    for _ in range(200):
        rollouts.generate(PROMPTS)
    end = gcs.cpu_times()
    return end.user + end.system - start.user - start.system


class SlowActor(InstantActor):
    """A rollout actor that takes a while to start."""

    def __init__(self, config: Config, model: Path) -> None:
        super().__init__(config, model)
        time.sleep(3)
        self.started = time.time()


class IdleLearner(LearnerActor):
    """A learner that only records when it would have taken memory."""

    def start(self, config: Config, model: Path, rank: int, size: int, address: str) -> None:
        self.started = time.time()


def test_learner_starts_after_the_engines_whose_gpu_it_shares_and_other_actors_see_no_gpu() -> None:
    settings = ["placement.rollout.num_gpus=0.5", "placement.learner.num_gpus=0.5", "run.name=shared"]
    config = load_config("demo", settings)
    with cluster({"num_cpus": CORES, "num_gpus": 1}):
        components = start_actors(config, Ready(Path(), SceneStream(0), ("vqa",)), SlowActor, IdleLearner)
        pools: Any = components
        started = ray.get(
            [p.actors[0].__ray_call__.remote(lambda a: a.started) for p in (pools.rollouts, pools.learner)]
        )
        assert started[0] < started[1]
        reward = pools.rewards.slots.actors[0]
        visible = ray.get(reward.__ray_call__.remote(lambda _: os.environ["CUDA_VISIBLE_DEVICES"]))
        assert visible == ""
        components.close()


def test_two_learner_actors_on_one_gpu_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"placement.learner.num_gpus: expected more than half a GPU .*NCCL"):
        load_config("debug-gpu", ["placement.learner.actors=2"])
