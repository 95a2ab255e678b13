"""The sentence embeddings: which files they are loaded from."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from geovlm_ray.core.errors import ModelError
from geovlm_ray.rewards.config import SbertConfig
from geovlm_ray.rewards.sbert import SbertEmbedder, _model_path


def test_a_folder_of_sentence_embeddings_without_safetensors_is_refused_and_not_run(tmp_path: Path) -> None:
    packaged = Path(_model_path("all-MiniLM-L6-v2"))
    folder = shutil.copytree(packaged, tmp_path / "sbert")
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    ran = tmp_path / "ran"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Runs(ran)))
    with pytest.raises(ModelError, match=r"reward\.sbert\.model .*does not load"):
        SbertEmbedder.from_config(SbertConfig(model=str(folder)))
    assert not ran.exists()


class Runs:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)
