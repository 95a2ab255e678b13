"""SBERT loading accepts safetensors only."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

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
    with pytest.raises(ModelError, match=r"reward\.sbert\.model .*does not load"):
        SbertEmbedder.from_config(SbertConfig(model=str(folder)))
    assert not marker.exists()


class TouchOnUnpickle:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)
