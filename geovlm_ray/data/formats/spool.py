"""A disk spool for values that are joined later."""

from __future__ import annotations

import os
import pickle
import tempfile
from array import array
from typing import Any


class Spool:
    """Pickled values in an unnamed temporary file, with random access; takes 8 bytes of memory per value."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="geovlm-ray-")  # noqa: SIM115 (open as long as the spool)
        self._starts = array("q", [0])
        self._flushed = True

    def __len__(self) -> int:
        return len(self._starts) - 1

    def add(self, value: Any) -> None:
        """Append a value."""
        self._starts.append(self._starts[-1] + self._file.write(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)))
        self._flushed = False

    def pickled(self, i: int) -> bytes:
        """Value ``i`` (from 0), pickled."""
        if not self._flushed:
            self._file.flush()
            self._flushed = True
        start = self._starts[i]
        return os.pread(self._file.fileno(), self._starts[i + 1] - start, start)

    def __getitem__(self, i: int) -> Any:
        return pickle.loads(self.pickled(i))
