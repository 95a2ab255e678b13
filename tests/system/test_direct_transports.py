"""Direct transports: weights that vLLM's workers receive themselves, without the object store."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.failures import fetch
from actors.learner import LearnerActor, RayLearner
from actors.rollout import RolloutActor
from actors.rollout_pool import RayRollouts
from benchmarks.random_model import SHAPES, write_model
from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import RunError
from geovlm_ray.core.schema import Prompt
from geovlm_ray.data.sampler import PromptSampler, SceneStream
from geovlm_ray.model.loading import model_folder
from geovlm_ray.training.local import LocalRollouts, make_engine, make_learner
from geovlm_ray.transport import TRANSPORTS, direct, vllm_workers
from tests.system.random_weights import RandomWeights

pytestmark = pytest.mark.slow
EVEN = replace(SHAPES["small"], vision={**SHAPES["small"].vision, "hidden_size": 128, "num_heads": 4})
"""A small model of which two workers can divide all heads."""


@pytest.mark.parametrize(
    ("transport", "lora"),
    [("gloo", "null"), ("gloo", "{rank: 4}"), ("gloo", "{rank: 4, targets: all}"), ("shared_memory", "null")],
)
def test_engine_and_learner_agree_after_each_version(transport: str, lora: str) -> None:
    config = load_config("demo", [f"model.lora={lora}", f"sync.transport={transport}", "rollout.max_tokens=8"])
    model = model_folder("tiny")
    check_versions(LocalRollouts(make_engine(config, model)), RandomWeights(make_learner(config, model)), config)


def check_versions(rollouts: LocalRollouts, weights: RandomWeights, config: Config) -> None:
    """Send three versions; engine and learner must agree after each."""
    prompts = PromptSampler(SceneStream(0), config.data, 3).batch(0)
    for version in (1, 2, 3):
        weights.set_version(version)
        rollouts.update_weights(weights.learner.weights)
        groups = rollouts.generate(prompts, group_size=2)
        assert {s.weight_version for g in groups for s in g.samples} == {version}
        assert weights.max_error(groups) < 1e-3


class Sender(LearnerActor):
    """A learner of which each version has other weights, sent in small chunks."""

    def start(self, config: Config, model: Path, rank: int, size: int, address: str) -> None:
        super().start(config, model, rank, size, address)
        self.random = RandomWeights(self.learner)
        self.folder = Path(config.run.dir)
        direct.BUFFER_BYTES = 2**16

    def weights(self, endpoints: Sequence[Any]) -> Iterator[Any]:
        self.random.set_version(self.learner.version + 1)
        yield from super().weights(endpoints)


class KillingSender(Sender):
    """Kills the process of its first engine in the middle of version 2."""

    def weights(self, endpoints: Sequence[Any]) -> Iterator[Any]:
        if self.learner.version == 1 and self.learner.ranks.rank == 0:
            (victim, *_), push, numbers = self.learner.transport._links.values(), direct._Link.push, itertools.count()
            port = victim._peer._name.rpartition(":")[2]

            def killing_push(link: Any, chunk: Any) -> None:
                if link is victim and next(numbers) == 3:
                    os.kill(int((self.folder / port).read_text()), signal.SIGKILL)
                push(link, chunk)

            direct._Link.push = killing_push  # type: ignore[method-assign]
        yield from super().weights(endpoints)


class MarkedActor(RolloutActor):
    """Writes its process id into a file of the run that is named after its port."""

    def __init__(self, config: Config, model: Path) -> None:
        super().__init__(config, model)
        self.folder = Path(config.run.dir)

    def endpoint(self) -> Any:
        endpoint = super().endpoint()
        (self.folder / str(endpoint.port)).write_text(str(os.getpid()))
        return endpoint


def max_error(rollouts: RayRollouts, learner: RayLearner, prompts: list[Prompt], version: int) -> float:
    """Largest log-prob difference of any engine to the learner; all engines must hold the version."""
    probed = rollouts.probe(prompts, max_tokens=8)
    assert {s.weight_version for groups in probed for g in groups for s in g.samples} == {version}
    differences = [
        np.abs(np.concatenate(learner.logprobs(groups)) - np.concatenate([g.samples[0].logprobs for g in groups]))
        for groups in probed
    ]
    return float(max(difference.max() for difference in differences))


@pytest.mark.long
@pytest.mark.parametrize(("transport", "ranks"), [("gloo", 1), ("gloo", 2), ("shared_memory", 1)])
def test_two_engines_get_each_version_and_a_killed_one_is_replaced(
    transport: str, ranks: int, cluster: None, tmp_path: Path
) -> None:
    config = load_config(
        "demo",
        [
            *(f"sync.transport={transport}", f"placement.learner.actors={ranks}", "placement.rollout.actors=2"),
            *("placement.rollout.num_cpus=0", "placement.learner.num_cpus=0", f"run.dir={tmp_path}"),
        ],
    )
    prompts = PromptSampler(SceneStream(0), config.data, 3).batch(0)
    rollouts = RayRollouts(config, model_folder("tiny"), MarkedActor)
    learner = RayLearner(config, model_folder("tiny"), KillingSender)
    try:
        rollouts.update_weights(learner.weights)
        assert max_error(rollouts, learner, prompts, 1) < 1e-3
        first = list(rollouts.actors)
        rollouts.update_weights(learner.weights)
        assert sum(a is not b for a, b in zip(first, rollouts.actors, strict=True)) == 1
        assert max_error(rollouts, learner, prompts, 2) < 1e-3
        fetch([actor.__ray_ready__.remote() for actor in rollouts.actors], "an actor")
        rollouts.update_weights(learner.weights)
        assert len(rollouts.probe(prompts, 1)) == 2, "the replacement is not used"
        assert max_error(rollouts, learner, prompts, 3) < 1e-3
    finally:
        rollouts.close()
        learner.close()


@pytest.mark.parametrize("lora", ["null", pytest.param("{rank: 4}", marks=pytest.mark.long)])
def test_engine_of_two_workers_gets_each_version(lora: str, tmp_path: Path) -> None:
    write_model(tmp_path / "model", EVEN)
    settings = ["rollout.tensor_parallel=2", "rollout.max_tokens=8", f"model.path={tmp_path}/model"]
    config = load_config("demo", [*settings, f"model.lora={lora}"])
    assert config.transport is TRANSPORTS["gloo" if lora == "null" else "object_store"]
    rollouts = LocalRollouts(make_engine(config, tmp_path / "model"))
    check_versions(rollouts, RandomWeights(make_learner(config, tmp_path / "model")), config)


@pytest.mark.long
def test_actor_with_two_workers_gets_each_version_from_two_ranks(cluster: None, tmp_path: Path) -> None:
    write_model(tmp_path / "model", EVEN)
    config = load_config(
        "demo",
        [
            *("rollout.tensor_parallel=2", "placement.learner.actors=2", f"model.path={tmp_path}/model"),
            *("placement.rollout.num_cpus=0", "placement.learner.num_cpus=0", f"run.dir={tmp_path}"),
        ],
    )
    prompts = PromptSampler(SceneStream(0), config.data, 3).batch(0)
    rollouts = RayRollouts(config, tmp_path / "model")
    learner = RayLearner(config, tmp_path / "model", Sender)
    try:
        for version in (1, 2):
            rollouts.update_weights(learner.weights)
            assert max_error(rollouts, learner, prompts, version) < 1e-3
    finally:
        rollouts.close()
        learner.close()


def test_corrupt_transfer_is_an_error_that_names_the_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("demo", ["sync.transport=gloo"])
    model = model_folder("tiny")
    rollouts, learner = LocalRollouts(make_engine(config, model)), make_learner(config, model)
    monkeypatch.setattr(vllm_workers.GlooEngine, "receive_bytes", corrupted(vllm_workers.GlooEngine.receive_bytes))
    with pytest.raises(RunError, match=r"weight \S+: expected digest \[.*\], found \[.*\] after the transfer"):
        rollouts.update_weights(learner.weights)


def corrupted(receive: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def flipped(*arguments: Any) -> torch.Tensor:
        packed = receive(*arguments)
        packed[12345] ^= 1
        return packed

    return flipped
