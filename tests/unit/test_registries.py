"""What is registered from outside the package is checked: one error names the entry, what was expected and found."""

from __future__ import annotations

import queue
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from geovlm_ray.config import load_config
from geovlm_ray.core.errors import ConfigError, ModelError, RunError
from geovlm_ray.learner.loss_inputs import BatchSize, Clip, LossInputs, Objective, Surrogate, clipped_surrogate
from geovlm_ray.learner.objectives import OBJECTIVES
from geovlm_ray.model.config import ModelConfig
from geovlm_ray.model.families import FAMILIES
from geovlm_ray.model.families.qwen2_5_vl import Qwen25VL
from geovlm_ray.model.loading import load_model, model_folder
from geovlm_ray.training.local import LocalRollouts, make_learner
from geovlm_ray.transport import TRANSPORTS
from geovlm_ray.transport.base import Transport, WeightUpdate, transport_errors

CPU = torch.device("cpu")


class Announcing(Transport):
    """Sends an announcement as its only chunk, and the tensors while the engine receives it."""

    replayable = False
    tensors: queue.Queue[Any] = queue.Queue(1)

    def send(self, update: WeightUpdate, rank: int, ranks: int, endpoints: Sequence[Any]) -> Iterator[int]:
        yield update.version
        for pair in update.tensors:
            self.tensors.put(pair, timeout=60)
        self.tensors.put(None, timeout=60)

    def receive(self, chunk: int) -> WeightUpdate | None:
        return WeightUpdate(chunk, list(iter(lambda: self.tensors.get(timeout=60), None)))


class Raising(Announcing):
    """Raises while it sends."""

    def send(self, update: WeightUpdate, rank: int, ranks: int, endpoints: Sequence[Any]) -> Iterator[int]:
        raise OSError("network unreachable")
        yield 0


class WithoutReceive(Transport):
    """Lacks a method."""

    replayable = False

    def send(self, update: WeightUpdate, rank: int, ranks: int, endpoints: Sequence[Any]) -> Iterator[int]:
        yield 0


@pytest.mark.parametrize("registered", ["text", 7, WithoutReceive, Announcing(1)])
def test_transport_must_be_a_complete_class(registered: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSPORTS, "mine", registered)  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError, match=r"sync.transport=mine: expected a subclass of Transport with send and receive"
    ):
        load_config("demo", ["sync.transport=mine"])


def test_errors_of_a_transport_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSPORTS, "raising", Raising)
    learner = make_learner(load_config("demo", ["sync.transport=raising"]), model_folder("tiny"))
    with pytest.raises(RunError, match=r"sync.transport: Raising failed to send weights: OSError: network unreachable"):
        list(learner.weights([]))
    with pytest.raises(ModelError, match="unchanged"), transport_errors(Raising(1), "receive weights"):
        raise ModelError("unchanged")


def test_transport_that_sends_while_the_engine_receives_works_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSPORTS, "announcing", Announcing)
    learner = make_learner(load_config("demo", ["sync.transport=announcing"]), model_folder("tiny"))
    received: list[WeightUpdate | None] = []
    engine: Any = SimpleNamespace(
        endpoint=lambda host: host, receive=lambda chunk: received.append(Announcing(1).receive(chunk))
    )
    LocalRollouts(engine).update_weights(learner.weights)
    (update,) = received
    assert update is not None
    assert [name for name, _ in update.tensors] == [name for name, _ in learner.model.named_parameters()]


def test_objective_must_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "mine", "grpo")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"objective=mine: expected an Objective in OBJECTIVES, found 'grpo'"):
        load_config("demo", ["learner.objective=mine"])
    with pytest.raises(ValueError, match=r"aggregation: expected one of token_mean, .*, found 'mean_of_all'"):
        Objective(clipped_surrogate, "mean_of_all")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("surrogate", "found"),
    [
        (lambda tokens, clip: None, "found None"),
        (lambda tokens, clip: Surrogate(*[torch.zeros(5)] * 4), r"values \[3\], found 'shape \[5\]'"),
    ],
)
def test_surrogate_must_have_a_value_per_token(surrogate: Callable[..., Any], found: str) -> None:
    tokens = LossInputs(torch.zeros(3), torch.zeros(3), torch.zeros(3, dtype=torch.long), torch.ones(1))
    with pytest.raises(ConfigError, match=rf"learner.objective: expected a Surrogate .*{found}"):
        Objective(surrogate, "token_mean").loss(tokens, Clip(0.2, 0.2), BatchSize(1, 3, 3))


@pytest.mark.parametrize("family", [Qwen25VL, "text", type("Other", (Qwen25VL,), {"model_type": "other"})()])
def test_family_must_be_an_instance_of_its_model_type(family: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "qwen2_5_vl", family)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"FAMILIES\['qwen2_5_vl'\]: expected an instance of ModelFamily"):
        model_folder("tiny")


def test_model_without_some_of_its_weights_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder("tiny"), folder)
    weights = load_file(folder / "model.safetensors")
    lost = [name for name in weights if ".mlp." in name and "visual" not in name]
    kept = {name: tensor for name, tensor in weights.items() if name not in lost}
    save_file({**kept, "surplus": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"found {len(lost)} missing \(.*mlp.*\) and 1 unknown \(surplus\)"):
        load_model(ModelConfig(), folder, CPU, seed=0)
