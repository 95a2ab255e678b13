"""``quarantine.parquet``: what was set aside at conversion or validation, why, and where it stood."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.formats.base import Unit
from geovlm_ray.data.table import Row

FILE = "quarantine.parquet"
LONGEST_CONTENT = 4_000
_VALUES = re.compile(r"'.*?'|\".*?\"|\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class SetAside:
    """One thing set aside.

    ``stage`` is ``convert`` or ``validate``. In the latter ``shard`` and ``row`` say which record of the dataset it
    is, which training then passes over. ``content`` is the beginning of the source's record.
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
    def of_unit(cls, unit: Unit, reason: str) -> SetAside:
        """A unit that could not be converted."""
        content = "" if unit.value is None or isinstance(unit.value, bytes) else json.dumps(unit.value, default=repr)
        return cls("convert", _clean(reason), _clean(unit.file), unit.number, content=content[:LONGEST_CONTENT])

    @classmethod
    def of_row(cls, row: Row, reason: str) -> SetAside:
        """A record that could not be written."""
        return cls("convert", _clean(reason), _clean(row.source_file), row.source_record, _clean(row.example.id))

    @property
    def kind(self) -> str:
        """The reason without the values in it, by which alike problems are counted."""
        return _VALUES.sub("…", self.reason)[:120]


_SCHEMA = pa.schema(
    [
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("source_file", pa.string()),
        ("source_record", pa.int64()),
        ("id", pa.string()),
        ("content", pa.string()),
        ("shard", pa.string()),
        ("row", pa.int64()),
    ]
)


@contextmanager
def write_quarantine(folder: Path) -> Iterator[Callable[[Sequence[SetAside]], None]]:
    """A function that adds to the quarantine of a folder; the file is there only if something was added."""
    writer: pq.ParquetWriter | None = None
    partial = folder / f".{FILE}.partial"

    def add(items: Sequence[SetAside]) -> None:
        nonlocal writer
        if items:
            writer = writer or pq.ParquetWriter(partial, _SCHEMA, compression="zstd")
            writer.write_table(pa.Table.from_pylist([asdict(item) for item in items], schema=_SCHEMA))

    yield add
    if writer is None:
        (folder / FILE).unlink(missing_ok=True)
    else:
        writer.close()
        partial.replace(folder / FILE)


def read_quarantine(folder: Path, stage: str) -> Iterator[SetAside]:
    """What a folder's quarantine holds of a stage.

    Raises:
        DataError: the file cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return
    try:
        for batch in pq.ParquetFile(path).iter_batches():
            yield from (SetAside(**v) for v in batch.to_pylist() if v["stage"] == stage)
    except (pa.ArrowException, OSError, TypeError) as error:
        raise DataError(f"{path}: expected a quarantine file, found: {' '.join(str(error).split())}") from error


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:1000]
