"""Values that wait on disk until they can be put together."""

from __future__ import annotations

import os
import pickle
import tempfile
from array import array
from typing import Any


class Spool:
    """Values in an unnamed temporary file, read back in any order; 8 bytes of memory each."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="geovlm-ray-")  # noqa: SIM115 (it lives as long as the spool)
        self._starts = array("q", [0])
        self._flushed = True

    def __len__(self) -> int:
        return len(self._starts) - 1

    def add(self, value: Any) -> None:
        """Put a value at the end."""
        self._starts.append(self._starts[-1] + self._file.write(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)))
        self._flushed = False

    def stored(self, i: int) -> bytes:
        """Value number i, pickled."""
        if not self._flushed:
            self._file.flush()
            self._flushed = True
        start = self._starts[i]
        return os.pread(self._file.fileno(), self._starts[i + 1] - start, start)

    def __getitem__(self, i: int) -> Any:
        return pickle.loads(self.stored(i))
