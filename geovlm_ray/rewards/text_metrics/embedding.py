"""Interface of sentence-embedding models used by metrics and rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Embedder(Protocol):
    """A sentence-embedding model."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-norm embeddings, float32 [n, d], in the order of the texts."""
        ...
