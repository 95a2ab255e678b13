"""Running index over the records of several datasets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from geovlm_ray.data.parquet import Dataset

Record = dict[str, Any]
"""A record as returned by ``to_pylist``."""


@dataclass(frozen=True)
class RecordIndex:
    """Shards with their datasets; shard s contains the records ``starts[s]`` to ``starts[s + 1] - 1``."""

    shards: Sequence[tuple[Dataset, Path]]
    starts: np.ndarray

    def of(self, dataset: Dataset, records: np.ndarray) -> np.ndarray:
        """The ascending record indices that belong to a dataset; its shards must be contiguous."""
        own = [s for s, (owner, _) in enumerate(self.shards) if owner is dataset]
        low, high = np.searchsorted(records, [self.starts[own[0]], self.starts[own[-1] + 1]])
        return records[low:high]

    def locate(self, record: int) -> tuple[Dataset, Path, int]:
        """Dataset, shard and row of a record."""
        s = int(np.searchsorted(self.starts, record, side="right")) - 1
        return *self.shards[s], int(record - self.starts[s])

    def name(self, record: int) -> str:
        """Location of a record for messages."""
        dataset, shard, row = self.locate(record)
        several = any(owner is not dataset for owner, _ in self.shards)
        return f"row {row} of {f'{dataset.folder.name}/' if several else ''}{shard.name}"

    def read(self, records: np.ndarray) -> Iterator[tuple[int, Dataset, Record]]:
        """Stream records by ascending index.

        Raises:
            DataError: A shard cannot be read.
        """
        for s, (dataset, shard) in enumerate(self.shards):
            low, high = np.searchsorted(records, self.starts[s : s + 2])
            rows, start = records[low:high] - self.starts[s], 0
            if not len(rows):
                continue
            for batch in dataset.batches(shard):
                selected = rows[slice(*np.searchsorted(rows, [start, start + len(batch)]))]
                if len(selected):
                    for row, record in zip(selected, batch.take(pa.array(selected - start)).to_pylist(), strict=True):
                        yield int(self.starts[s] + row), dataset, record
                start += len(batch)
