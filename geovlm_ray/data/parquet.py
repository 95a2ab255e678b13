"""Reading of converted datasets, as a stream or with random access through a memory-mapped copy."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_object, writing
from geovlm_ray.data.convert import CARD
from geovlm_ray.data.parquet_files import read_batches
from geovlm_ray.data.quarantine import FILE as QUARANTINE
from geovlm_ray.data.quarantine import read_quarantine
from geovlm_ray.data.table import SCHEMA, Row, to_row


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
        """Read the records of a shard in batches; raises DataError as `read_batches` does."""
        return read_batches(shard, SCHEMA)

    def records(self, shard: Path) -> Iterator[dict[str, Any]]:
        """Read the records of a shard, as in ``to_pylist``; fails as `batches` does."""
        return itertools.chain.from_iterable(batch.to_pylist() for batch in self.batches(shard))

    def rows(self) -> Iterator[tuple[Path, int, Row]]:
        """All records with shard path and row index, including quarantined ones.

        Raises:
            DataError: A shard or record cannot be read.
        """
        for shard in self.shards:
            for index, values in enumerate(self.records(shard)):
                yield shard, index, read_row(values, f"{shard}, row {index}")

    def quarantined_rows(self) -> dict[str, set[int]]:
        """Row indices that validation quarantined, by shard name."""
        rows: dict[str, set[int]] = {}
        for entry in read_quarantine(self.folder, "validate"):
            if entry.shard is not None and entry.row is not None:
                rows.setdefault(entry.shard, set()).add(entry.row)
        return rows


def read_row(values: Mapping[str, Any], where: str) -> Row:
    """Build a row from one record of ``to_pylist``; ``where`` names shard and row in the error message.

    Raises:
        DataError: A value is null or invalid.
    """
    try:
        return to_row(values)
    except DataError as error:
        raise DataError(f"{where}: {error}; `geovlm-ray data validate` quarantines such records") from error


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
    configured = read_object(card).get("image_root", ".") if card.is_file() else "."
    if not isinstance(configured, str):
        raise DataError(f"{card}, image_root: expected text, found {configured!r:.100}")
    try:
        root = (folder / configured).resolve()
        is_below = root.is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{card}, image_root: expected the path of a folder, found: {error}") from error
    if root == Path(root.anchor) or not (Path(configured).is_absolute() or is_below):
        raise DataError(
            f"{card}, image_root: expected a folder below the dataset folder or an absolute path, found "
            f"{configured!r}; set data.root or --root to the image folder"
        )
    return folder / configured


class RecordTable:
    """Random access to the records of datasets, without quarantined ones; reading one takes microseconds.

    The records are stored uncompressed in a memory-mapped unnamed temporary file, so a table may exceed the memory.

    Raises:
        DataError: A shard cannot be read, or the temporary file cannot be written.
    """

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self._parts: list[_Part] = []
        self._starts = [0]
        base = os.path.commonpath([dataset.folder for dataset in datasets])
        with writing(Path(tempfile.gettempdir())), tempfile.TemporaryFile(prefix="geovlm-ray-") as file:
            with pa.ipc.new_file(file, SCHEMA) as writer:
                for dataset in datasets:
                    self._copy(dataset, base, writer)
            file.flush()
            source = pa.memory_map(f"/proc/self/fd/{file.fileno()}")
        reader = pa.ipc.open_file(source)
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]

    def __len__(self) -> int:
        return self._starts[-1]

    def indices_by(self, column: str) -> dict[str, np.ndarray]:
        """Record indices by value of a text column, with values in order of first occurrence; null is ""."""
        chunks = pa.chunked_array([batch[column] for batch in self._batches], type=pa.string())
        encoded = chunks.fill_null("").dictionary_encode().unify_dictionaries().combine_chunks()
        codes = encoded.indices.to_numpy()
        return {value: np.flatnonzero(codes == i) for i, value in enumerate(encoded.dictionary.to_pylist())}

    def row(self, i: int) -> Row:
        """Record i, with its origin and image references of the form ``ROOT//path``.

        Raises:
            DataError: A value is null or invalid.
        """
        origin, root = self.origin(i), self._parts[self._part_of(i)].root
        try:
            row = to_row(self.values(i))
        except DataError as error:
            raise DataError(f"{origin}: {error}") from error
        images = tuple(f"{root}//{image}" for image in row.example.images)
        return replace(row, example=replace(row.example, images=images, origin=origin))

    def values(self, i: int) -> dict[str, Any]:
        """Record i as in ``to_pylist``."""
        part = self._part_of(i)
        values: dict[str, Any] = self._batches[part].slice(i - self._starts[part], 1).to_pylist()[0]
        return values

    def origin(self, i: int) -> str:
        """Shard and row of record i; the shard's path is relative to the folder that all datasets have in common."""
        part = self._part_of(i)
        return f"{self._parts[part].shard}, row {self._parts[part].rows[i - self._starts[part]]}"

    def records(self, indices: Sequence[int] | np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
        """The records with these ascending indices, each as in ``to_pylist``."""
        ascending = np.asarray(indices)
        for part in np.unique(np.searchsorted(self._starts, ascending, side="right") - 1):
            low, high = np.searchsorted(ascending, self._starts[part : part + 2])
            chosen = ascending[low:high]
            rows = self._batches[part].take(pa.array(chosen - self._starts[part])).to_pylist()
            yield from zip(chosen.tolist(), rows, strict=True)

    def image_keys(self) -> tuple[np.ndarray, np.ndarray]:
        """Fingerprints of all image references, uint64 [m], and the index of the record that each is of, [m]."""
        keys: list[int] = []
        counts = []
        for part, batch in zip(self._parts, self._batches, strict=True):
            images = batch["images"]
            counts.append(images.value_lengths().fill_null(0).to_numpy())
            keys += [xxhash.xxh3_64_intdigest(f"{part.root}//{n}".encode()) for n in images.flatten().to_pylist()]
        owners = np.repeat(np.arange(len(self)), np.concatenate(counts)) if counts else np.empty(0, int)
        return np.array(keys, dtype=np.uint64), owners

    def _part_of(self, i: int) -> int:
        return int(np.searchsorted(self._starts, i, side="right")) - 1

    def _copy(self, dataset: Dataset, base: str, writer: pa.RecordBatchWriter) -> None:
        quarantined = dataset.quarantined_rows()
        for shard in dataset.shards:
            start, excluded = 0, list(quarantined.get(shard.name, ()))
            for batch in dataset.batches(shard):
                rows = np.arange(start, start + len(batch))
                rows = rows[~np.isin(rows, excluded)]
                kept = batch.take(pa.array(rows - start))
                start += len(batch)
                if len(kept):
                    writer.write_batch(kept)
                    self._parts.append(_Part(dataset.root.absolute(), os.path.relpath(shard, base), rows))
                    self._starts.append(self._starts[-1] + len(kept))


@dataclass(frozen=True)
class _Part:
    """Where a batch of a table comes from: image root, shard, and the rows of its records in that, [n]."""

    root: Path
    shard: str
    rows: np.ndarray
