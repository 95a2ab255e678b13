"""The paper's recipe is schedulable on the nodes of the KubeRay manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray

from actors.cluster import start_actors
from benchmarks.instant_engine import InstantActor
from benchmarks.toy_policy import ToyLearnerActor
from geovlm_ray.config import RunConfig, load_config
from geovlm_ray.data.sampler import SceneStream
from geovlm_ray.rewards.config import SbertConfig
from geovlm_ray.training.preflight import Ready
from tests.long.clusters import cluster
from tests.unit.test_deploy import KUBERAY, read

pytestmark = pytest.mark.slow


def kuberay_nodes() -> list[dict[str, float]]:
    """Pods of the KubeRay cluster, in reverse order so that rollout actors do not occupy the learner's pod."""
    pods = []
    for group in read(KUBERAY / "raycluster.yaml")["spec"]["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        pod = {"num_cpus": float(limits["cpu"]), "num_gpus": float(limits.get("nvidia.com/gpu", 0))}
        pods += [pod] * group["minReplicas"]
    return pods[::-1]


class FakeSbertActor:
    """Replaces the SBERT actor, whose model needs a real GPU."""

    def __init__(self, config: SbertConfig, run: RunConfig) -> None:
        pass


def test_paper_recipe_is_scheduled_on_the_kuberay_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.reward.SbertActor", FakeSbertActor)
    config = load_config("geovlm-r1", [f"run.dir={tmp_path}", "rollout.stall_s=60"])
    ready = Ready(Path(), SceneStream(0), ("region_captioning",))
    with cluster({"num_cpus": 0}, *kuberay_nodes()):
        components = start_actors(config, ready, InstantActor, ToyLearnerActor)
        pools: tuple[Any, ...] = (components.learner, components.rollouts, components.rewards.sbert, components.rewards)
        actors = [actor for pool in pools for actor in pool.actors]
        started = [actor.__ray_ready__.remote() for actor in actors]
        assert len(ray.wait(started, num_returns=len(started), timeout=120)[0]) == 14
