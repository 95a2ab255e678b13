"""Reading of converted datasets, as a stream or with random access through a memory-mapped copy."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_object, writing
from geovlm_ray.data.convert import CARD
from geovlm_ray.data.quarantine import FILE as QUARANTINE
from geovlm_ray.data.quarantine import read_quarantine
from geovlm_ray.data.table import SCHEMA, VERSION, VERSION_KEY, Row, to_row

BATCH_ROWS = 2_000


@dataclass(frozen=True)
class Dataset:
    """A folder of Parquet shards; its image paths are relative to ``root``."""

    folder: Path
    root: Path

    @cached_property
    def shards(self) -> list[Path]:
        """Shard paths in order."""
        return sorted(p for p in self.folder.glob("*.parquet") if p.name != QUARANTINE)

    def batches(self, shard: Path) -> Iterator[pa.RecordBatch]:
        """Read the records of a shard in batches.

        Raises:
            DataError: The shard cannot be read or has a different schema.
        """
        try:
            file = pq.ParquetFile(shard)
            version = (file.schema_arrow.metadata or {}).get(VERSION_KEY)
            if version != str(VERSION).encode() or not file.schema_arrow.equals(SCHEMA):
                raise DataError(
                    f"{shard}: expected schema version {VERSION} of geovlm_ray, found "
                    f"{f'version {version.decode()}' if version else 'a different schema'}; convert the source again"
                )
            yield from file.iter_batches(BATCH_ROWS)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{shard}: expected a readable Parquet file, found: {' '.join(str(error).split())}"
            ) from error

    def records(self, shard: Path) -> Iterator[dict[str, Any]]:
        """Read the records of a shard, as in ``to_pylist``; fails as `batches` does."""
        return itertools.chain.from_iterable(batch.to_pylist() for batch in self.batches(shard))

    def rows(self) -> Iterator[tuple[Path, int, Row]]:
        """All records with shard path and row index, including quarantined ones.

        Raises:
            DataError: A shard cannot be read.
        """
        for shard in self.shards:
            for index, values in enumerate(self.records(shard)):
                yield shard, index, to_row(values)

    def quarantined_rows(self) -> dict[str, set[int]]:
        """Row indices that validation quarantined, by shard name."""
        rows: dict[str, set[int]] = {}
        for entry in read_quarantine(self.folder, "validate"):
            if entry.shard is not None and entry.row is not None:
                rows.setdefault(entry.shard, set()).add(entry.row)
        return rows


def open_datasets(path: Path, root: Path | None = None) -> list[Dataset]:
    """Find the datasets in a folder and its subfolders; ``root`` overrides their image roots.

    Raises:
        DataError: The folder is absent, contains no shard, or a dataset card has a relative image root outside its
            folder.
    """
    if not path.is_dir():
        raise DataError(f"{path}: expected an output folder of `geovlm-ray data convert`, found none")
    folders = sorted({p.parent for p in path.rglob("*.parquet") if p.name != QUARANTINE})
    if not folders:
        raise DataError(f"{path}: expected Parquet shards of `geovlm-ray data convert`, found none")
    return [Dataset(folder, root or _image_root(folder)) for folder in folders]


def _image_root(folder: Path) -> Path:
    """Image root from the dataset card; the folder itself without a card."""
    card = folder / CARD
    configured = Path(str(read_object(card).get("image_root", "."))) if card.is_file() else Path()
    root = (folder / configured).resolve()
    if root == Path(root.anchor) or not (configured.is_absolute() or root.is_relative_to(folder.resolve())):
        raise DataError(
            f"{card}, image_root: expected a folder below the dataset folder or an absolute path, found "
            f"{str(configured)!r}; set data.root or --root to the image folder"
        )
    return folder / configured


class RecordTable:
    """Random access to the records of datasets, without quarantined ones; reading one takes microseconds.

    The records are stored uncompressed in a memory-mapped unnamed temporary file, so a table may exceed the memory.

    Raises:
        DataError: A shard cannot be read, or the temporary file cannot be written.
    """

    def __init__(self, datasets: list[Dataset]) -> None:
        self._roots: list[Path] = []
        self._starts = [0]
        self._batches: list[pa.RecordBatch] = []
        with writing(Path(tempfile.gettempdir())), tempfile.TemporaryFile(prefix="geovlm-ray-") as file:
            with pa.ipc.new_file(file, SCHEMA) as writer:
                for dataset in datasets:
                    self._copy(dataset, writer)
            file.flush()
            source = pa.memory_map(f"/proc/self/fd/{file.fileno()}")
        reader = pa.ipc.open_file(source)
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]

    def __len__(self) -> int:
        return self._starts[-1]

    def indices_by(self, column: str) -> dict[str, np.ndarray]:
        """Record indices by value of a text column, with values in order of first occurrence."""
        chunks = pa.chunked_array([batch[column] for batch in self._batches], type=pa.string())
        encoded = chunks.dictionary_encode().unify_dictionaries().combine_chunks()
        codes = encoded.indices.to_numpy()
        return {value: np.flatnonzero(codes == i) for i, value in enumerate(encoded.dictionary.to_pylist())}

    def row(self, i: int) -> Row:
        """Record i, with image references of the form ``ROOT//path``."""
        batch = int(np.searchsorted(self._starts, i, side="right")) - 1
        row = to_row(self._batches[batch].slice(i - self._starts[batch], 1).to_pylist()[0])
        images = tuple(f"{self._roots[batch]}//{image}" for image in row.example.images)
        return replace(row, example=replace(row.example, images=images))

    def _copy(self, dataset: Dataset, writer: pa.RecordBatchWriter) -> None:
        quarantined = dataset.quarantined_rows()
        for shard in dataset.shards:
            start, excluded = 0, list(quarantined.get(shard.name, ()))
            for batch in dataset.batches(shard):
                rows = np.arange(start, start + len(batch))
                kept = batch.filter(pa.array(~np.isin(rows, excluded)))
                start += len(batch)
                if len(kept):
                    writer.write_batch(kept)
                    self._roots.append(dataset.root.absolute())
                    self._starts.append(self._starts[-1] + len(kept))
