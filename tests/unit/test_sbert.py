"""SBERT loading accepts safetensors only."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from geovlm_ray.core.errors import ModelError
from geovlm_ray.rewards.config import SbertConfig
from geovlm_ray.rewards.sbert import SbertEmbedder, model_path


def test_model_without_safetensors_is_rejected_and_never_unpickled(tmp_path: Path) -> None:
    source = Path(model_path("all-MiniLM-L6-v2"))
    folder = shutil.copytree(source, tmp_path / "sbert")
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    marker = tmp_path / "unpickled"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(TouchOnUnpickle(marker)))
    with pytest.raises(ModelError, match=r"reward\.sbert\.model .*expected weights in \*\.safetensors"):
        SbertEmbedder.from_config(SbertConfig(model=str(folder)))
    assert not marker.exists()


def test_weights_of_other_runtimes_beside_the_model_are_ignored(tmp_path: Path) -> None:
    folder = shutil.copytree(Path(model_path("all-MiniLM-L6-v2")), tmp_path / "sbert")
    (folder / "openvino").mkdir()
    (folder / "openvino" / "openvino_model.bin").write_bytes(b"")
    SbertEmbedder.from_config(SbertConfig(model=str(folder)))


def test_model_with_a_missing_tensor_or_a_pipe_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(Path(model_path("all-MiniLM-L6-v2")), tmp_path / "sbert")
    weights = load_file(folder / "model.safetensors")
    (lost,) = [name for name in weights if name.endswith("encoder.layer.3.output.dense.weight")]
    save_file({k: v for k, v in weights.items() if k != lost}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=rf"expected all weights in .*, found none for .*{lost}"):
        SbertEmbedder.from_config(SbertConfig(model=str(folder)))
    (folder / "modules.json").unlink()
    os.mkfifo(folder / "modules.json")
    with pytest.raises(ModelError, match=r"expected files and folders only, found .*modules\.json"):
        SbertEmbedder.from_config(SbertConfig(model=str(folder)))


class TouchOnUnpickle:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)
