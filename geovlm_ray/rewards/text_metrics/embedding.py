"""What metrics and rewards ask of a sentence-embedding model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Embedder(Protocol):
    """A sentence-embedding model."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of unit norm, float32 [n, d], in the order of the texts."""
        ...
