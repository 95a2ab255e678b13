"""The records of several datasets under one running number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from geovlm_ray.data.parquet import Dataset

Record = dict[str, Any]
"""A record as ``to_pylist`` gives it."""


@dataclass(frozen=True)
class Numbered:
    """Shards, each with its dataset; shard s holds the records numbered from ``starts[s]`` up to ``starts[s + 1]``."""

    shards: Sequence[tuple[Dataset, Path]]
    starts: np.ndarray

    def of(self, dataset: Dataset, numbers: np.ndarray) -> np.ndarray:
        """Those of some ascending numbers that are of a dataset, whose shards are neighbours."""
        held = [s for s, (owner, _) in enumerate(self.shards) if owner is dataset]
        low, high = np.searchsorted(numbers, [self.starts[held[0]], self.starts[held[-1] + 1]])
        return numbers[low:high]

    def place(self, number: int) -> tuple[Dataset, Path, int]:
        """A record's dataset, shard and row."""
        s = int(np.searchsorted(self.starts, number, side="right")) - 1
        return *self.shards[s], int(number - self.starts[s])

    def name(self, number: int) -> str:
        """Where a record stands, in words."""
        dataset, shard, row = self.place(number)
        several = any(owner is not dataset for owner, _ in self.shards)
        return f"row {row} of {f'{dataset.folder.name}/' if several else ''}{shard.name}"

    def read(self, numbers: np.ndarray) -> Iterator[tuple[int, Dataset, Record]]:
        """Records by their ascending numbers, in a stream.

        Raises:
            DataError: a shard cannot be read.
        """
        for s, (dataset, shard) in enumerate(self.shards):
            low, high = np.searchsorted(numbers, self.starts[s : s + 2])
            rows, at = numbers[low:high] - self.starts[s], 0
            if not len(rows):
                continue
            for batch in dataset.batches(shard):
                here = rows[slice(*np.searchsorted(rows, [at, at + len(batch)]))]
                if len(here):
                    for row, record in zip(here, batch.take(pa.array(here - at)).to_pylist(), strict=True):
                        yield int(self.starts[s] + row), dataset, record
                at += len(batch)
