"""Reading converted datasets: in a stream, or any record at once out of a memory-mapped copy."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_object
from geovlm_ray.data.convert import CARD
from geovlm_ray.data.quarantine import FILE as QUARANTINE
from geovlm_ray.data.quarantine import read_quarantine
from geovlm_ray.data.table import SCHEMA, VERSION, VERSION_KEY, Row, to_row

ROWS_AT_ONCE = 2_000


@dataclass(frozen=True)
class Dataset:
    """A folder of shards. ``root`` is the folder that its image paths are relative to."""

    folder: Path
    root: Path

    @cached_property
    def shards(self) -> list[Path]:
        """The shards in order."""
        return sorted(p for p in self.folder.glob("*.parquet") if p.name != QUARANTINE)

    def batches(self, shard: Path) -> Iterator[pa.RecordBatch]:
        """The records of a shard, some at a time.

        Raises:
            DataError: it cannot be read, or is of another schema.
        """
        try:
            file = pq.ParquetFile(shard)
            found = (file.schema_arrow.metadata or {}).get(VERSION_KEY)
            if found != str(VERSION).encode() or not file.schema_arrow.equals(SCHEMA):
                raise DataError(
                    f"{shard}: expected the schema of geovlm_ray, version {VERSION}, found "
                    f"{f'version {found.decode()}' if found else 'another one'}; convert the source again"
                )
            yield from file.iter_batches(ROWS_AT_ONCE)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{shard}: expected records as Parquet, found: {' '.join(str(error).split())}") from error

    def rows(self) -> Iterator[tuple[Path, int, Row]]:
        """Every record with its shard and its place there, set aside or not.

        Raises:
            DataError: a shard cannot be read.
        """
        for shard in self.shards:
            place = 0
            for batch in self.batches(shard):
                for values in batch.to_pylist():
                    yield shard, place, to_row(values)
                    place += 1

    def set_aside(self) -> dict[str, set[int]]:
        """Places of the records, by shard, that validation set aside."""
        places: dict[str, set[int]] = {}
        for item in read_quarantine(self.folder, "validate"):
            if item.shard is not None and item.row is not None:
                places.setdefault(item.shard, set()).add(item.row)
        return places


def open_datasets(path: Path, root: Path | None = None) -> list[Dataset]:
    """The datasets at and below a folder, each with its image root, or all with ``root``.

    Raises:
        DataError: there is no folder, no shard in it, or a card names a root that leads out of its folder.
    """
    if not path.is_dir():
        raise DataError(f"{path}: expected a folder that `geovlm-ray data convert` wrote, found none")
    folders = sorted({p.parent for p in path.rglob("*.parquet") if p.name != QUARANTINE})
    if not folders:
        raise DataError(f"{path}: expected Parquet shards of `geovlm-ray data convert`, found none")
    return [Dataset(folder, root or _image_root(folder)) for folder in folders]


def _image_root(folder: Path) -> Path:
    """What the dataset's card says; without a card the folder itself."""
    card = folder / CARD
    named = Path(str(read_object(card).get("image_root", "."))) if card.is_file() else Path()
    root = (folder / named).resolve()
    if root == Path(root.anchor) or not (named.is_absolute() or root.is_relative_to(folder.resolve())):
        raise DataError(
            f"{card}, image_root: expected a folder below the dataset's or a whole path, found {str(named)!r}; "
            "name the folder of the images by data.root or --root"
        )
    return folder / named


class RecordTable:
    """All records of some datasets that were not set aside; any one is read in microseconds.

    They lie uncompressed in an unnamed temporary file that is mapped into memory, so that a table may be larger than
    the memory is.
    """

    def __init__(self, datasets: list[Dataset]) -> None:
        self._roots: list[Path] = []
        self._starts = [0]
        self._batches: list[pa.RecordBatch] = []
        with tempfile.TemporaryFile(prefix="geovlm-ray-") as file:
            with pa.ipc.new_file(file, SCHEMA) as writer:
                for dataset in datasets:
                    self._copy(dataset, writer)
            file.flush()
            source = pa.memory_map(f"/proc/self/fd/{file.fileno()}")
        reader = pa.ipc.open_file(source)
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]

    def __len__(self) -> int:
        return self._starts[-1]

    def places(self, column: str) -> dict[str, np.ndarray]:
        """Numbers of the records that have each value of a text column, in the order in which the values come."""
        chunks = pa.chunked_array([batch[column] for batch in self._batches], type=pa.string())
        coded = chunks.dictionary_encode().unify_dictionaries().combine_chunks()
        codes = coded.indices.to_numpy()
        return {value: np.flatnonzero(codes == i) for i, value in enumerate(coded.dictionary.to_pylist())}

    def row(self, i: int) -> Row:
        """Record i, its images as references that name their root."""
        batch = int(np.searchsorted(self._starts, i, side="right")) - 1
        values = self._batches[batch].slice(i - self._starts[batch], 1).to_pylist()[0]
        row = to_row(values)
        images = tuple(f"{self._roots[batch]}//{image}" for image in row.example.images)
        return replace(row, example=replace(row.example, images=images))

    def _copy(self, dataset: Dataset, writer: pa.RecordBatchWriter) -> None:
        aside = dataset.set_aside()
        for shard in dataset.shards:
            place, gone = 0, aside.get(shard.name, set())
            for batch in dataset.batches(shard):
                kept = batch
                here = [p - place for p in gone if place <= p < place + len(batch)]
                if here:
                    mask = np.ones(len(batch), dtype=bool)
                    mask[here] = False
                    kept = pc.filter(batch, pa.array(mask))
                place += len(batch)
                if len(kept):
                    writer.write_batch(kept)
                    self._roots.append(dataset.root.absolute())
                    self._starts.append(self._starts[-1] + len(kept))
