"""Weight transports: one that is registered from outside the package moves weights as the built-in one does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
import xxhash
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from geovlm_ray.config import load_config
from geovlm_ray.core.errors import ConfigError, RunError
from geovlm_ray.model.loading import model_folder
from geovlm_ray.training.local import LocalRollouts, make_learner, make_transport
from geovlm_ray.transport import TRANSPORTS
from geovlm_ray.transport.base import Transport, WeightUpdate


@dataclass(frozen=True)
class FileChunk:
    """Names a file with all tensors of a version."""

    version: int
    adapter: Mapping[str, Any] | None
    path: Path
    checksum: int


class FileTransport(Transport):
    """Moves a version through a file that learner and engines share; a chunk is only its name and checksum."""

    replayable = True

    def send(self, update: WeightUpdate, rank: int, ranks: int, endpoints: Sequence[Any]) -> Iterator[FileChunk]:
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in update.tensors}
        if rank == 0:
            path = Path(mkdtemp()) / "weights.safetensors"
            save_file(tensors, path)
            yield FileChunk(update.version, update.adapter, path, xxhash.xxh3_64_intdigest(path.read_bytes()))

    def receive(self, chunk: FileChunk) -> WeightUpdate | None:
        if xxhash.xxh3_64_intdigest(chunk.path.read_bytes()) != chunk.checksum:
            raise RunError(f"{chunk.path}: expected checksum {chunk.checksum:016x}")
        return WeightUpdate(chunk.version, load_file(chunk.path).items(), chunk.adapter)


class EngineDouble:
    """Receives like an engine, and keeps the weights instead of loading them."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.updates: list[WeightUpdate] = []

    def endpoint(self, host: str) -> Any:
        return self.transport.endpoint(host, ["cpu"])

    def receive(self, chunk: Any) -> int:
        update = self.transport.receive(chunk)
        self.updates += [update] if update else []
        return len(self.updates)


@pytest.fixture(autouse=True)
def _file_transport(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(TRANSPORTS, "files", FileTransport)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.mark.parametrize("lora", ["null", "{rank: 4}"])
@pytest.mark.parametrize("transport", ["object_store", "files"])
def test_weights_reach_the_engine(transport: str, lora: str) -> None:
    config = load_config("demo", [f"sync.transport={transport}", f"model.lora={lora}"])
    learner = make_learner(config, model_folder("tiny"))
    engine = EngineDouble(make_transport(config))
    assert type(engine.transport) is TRANSPORTS[transport]
    LocalRollouts(engine).update_weights(learner.weights)  # type: ignore[arg-type]
    (update,) = engine.updates
    model = learner.model
    expected = dict(model.named_parameters()) if lora == "null" else get_peft_model_state_dict(model)
    assert update.version == learner.version
    assert (update.adapter is None) == (lora == "null")
    received = dict(update.tensors)
    assert received.keys() == expected.keys()
    assert all(torch.equal(received[name], expected[name]) for name in expected)


def test_transport_refuses_corrupt_bytes() -> None:
    transport = make_transport(load_config("demo", ["sync.transport=files"]))
    (chunk,) = transport.send(WeightUpdate(3, [("a", torch.zeros(4))]), rank=0, ranks=1, endpoints=[])
    content = chunk.path.read_bytes()
    chunk.path.write_bytes(content[:-1] + b"\x01")
    with pytest.raises(RunError, match="expected checksum"):
        transport.receive(chunk)
    chunk.path.write_bytes(content)
    update = transport.receive(chunk)
    assert update is not None
    assert [(name, tensor.tolist()) for name, tensor in update.tensors] == [("a", [0.0] * 4)]


def test_unknown_transport_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"sync\.transport: expected one of auto, object_store, nccl, .*, files, found 'rdma'"
    ):
        load_config("demo", ["sync.transport=rdma"])
