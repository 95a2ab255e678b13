"""``quarantine.parquet``: records rejected by conversion or validation, with reason and location."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from geovlm_ray.data.formats.base import Unit
from geovlm_ray.data.parquet_files import read_batches
from geovlm_ray.data.table import Row

FILE = "quarantine.parquet"
MAX_CONTENT_CHARS = 4_000
_VALUES = re.compile(r"'.*?'|\".*?\"|\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class QuarantineEntry:
    """One rejected record or part of one.

    ``stage`` is ``convert`` or ``validate``. For ``validate``, ``shard`` and ``row`` locate the record in the dataset,
    and training skips it. ``content`` is the source record, truncated to `MAX_CONTENT_CHARS`.
    """

    stage: str
    reason: str
    source_file: str
    source_record: int
    id: str | None = None
    content: str = ""
    shard: str | None = None
    row: int | None = None

    @classmethod
    def of_unit(cls, unit: Unit, reason: str) -> QuarantineEntry:
        """Entry of a unit that cannot be converted."""
        content = "" if unit.value is None or isinstance(unit.value, bytes) else json.dumps(unit.value, default=repr)
        return cls("convert", _clean(reason), _clean(unit.file), unit.number, content=content[:MAX_CONTENT_CHARS])

    @classmethod
    def of_row(cls, row: Row, reason: str) -> QuarantineEntry:
        """Entry of a record that cannot be written."""
        return cls("convert", _clean(reason), _clean(row.source_file), row.source_record, _clean(row.example.id))

    @property
    def kind(self) -> str:
        """The reason with values replaced by ``…``, for counting."""
        return _VALUES.sub("…", self.reason)[:120]


_SCHEMA = pa.schema(
    (name, pa.int64() if name in ("source_record", "row") else pa.string()) for name in QuarantineEntry.__annotations__
)


@contextmanager
def write_quarantine(folder: Path) -> Iterator[Callable[[Sequence[QuarantineEntry]], None]]:
    """Replace a folder's quarantine file; yields a function that adds entries. Without entries, no file is written."""
    writer: pq.ParquetWriter | None = None
    partial = folder / f".{FILE}.partial"

    def add(entries: Sequence[QuarantineEntry]) -> None:
        nonlocal writer
        if entries:
            writer = writer or pq.ParquetWriter(partial, _SCHEMA, compression="zstd")
            writer.write_table(pa.Table.from_pylist([asdict(entry) for entry in entries], schema=_SCHEMA))

    yield add
    if writer is None:
        (folder / FILE).unlink(missing_ok=True)
    else:
        writer.close()
        partial.replace(folder / FILE)


def read_quarantine(folder: Path, stage: str) -> Iterator[QuarantineEntry]:
    """Read the quarantine entries of a stage.

    Raises:
        DataError: The file cannot be read.
    """
    path = folder / FILE
    if not path.exists():
        return
    for batch in read_batches(path, _SCHEMA):
        yield from (QuarantineEntry(**v) for v in batch.to_pylist() if v["stage"] == stage)


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:1000]
