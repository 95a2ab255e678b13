"""Limits on the memory that Parquet and Arrow data take: kilobytes of a file may stand for gigabytes of values.

Texts of Parquet are read as dictionaries, which hold each value once, so that a batch is measured before it is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geovlm_ray.core.errors import DataError

MAX_BATCH_BYTES = 2**29
"""Maximum size of the values of a batch."""
MAX_GROUP_BYTES = 2**30
"""Maximum size, without compression, of a row group of Parquet, or of a compressed batch of an Arrow file."""
_BYTES_PER_VALUE = 8
"""Levels and index of a value in memory; a run of equal values takes a few bytes of a file."""
_UNBOUNDED = (pa.types.is_union, pa.types.is_run_end_encoded, pa.types.is_list_view, pa.types.is_large_list_view)


@contextmanager
def open_parquet(path: Path, **options: Any) -> Iterator[tuple[pq.ParquetFile, pa.Schema]]:
    """Open a Parquet file whose texts are read as dictionaries; also returns its schema without these.

    Raises:
        pyarrow.ArrowException, OSError: it is not a readable Parquet file.
    """
    with pq.ParquetFile(path) as plain:
        leaves = map(plain.metadata.schema.column, range(plain.metadata.num_columns))
        texts = [c.path for c in leaves if c.physical_type == "BYTE_ARRAY" and c.logical_type.type != "DECIMAL"]
        with pq.ParquetFile(path, metadata=plain.metadata, read_dictionary=texts, **options) as file:
            yield file, plain.schema_arrow


def read_decoded(path: Path, file: pq.ParquetFile, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    """Read the columns of ``schema`` of a file of `open_parquet` in batches of ``rows``, without dictionaries.

    Raises:
        DataError: a row group or batch exceeds the limits.
        pyarrow.ArrowException, OSError: the file is damaged.
    """
    start = 0
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        values = sum(group.column(i).num_values for i in range(group.num_columns))
        size = group.total_byte_size + _BYTES_PER_VALUE * values
        _check_size(size, MAX_GROUP_BYTES, f"{path}, row group {number}")
    for batch in file.iter_batches(rows, columns=schema.names):
        _check_size(decoded_bytes(batch), MAX_BATCH_BYTES, f"{path}, rows {start} to {start + len(batch) - 1}")
        start += len(batch)
        yield batch.cast(schema)


def bounded_slices(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    """Slices of a batch, of ``rows`` or as many fewer as keep them below `MAX_BATCH_BYTES`.

    Raises:
        ValueError: a single row is larger, or the size of a column's type is unknown.
    """
    for start in range(0, len(batch), rows):
        part = batch.slice(start, rows)
        size = decoded_bytes(part)
        if size <= MAX_BATCH_BYTES:
            yield part
        elif rows > 1:
            yield from bounded_slices(part, rows // 2)
        else:
            raise ValueError(f"a row of {size / 2**20:,.0f} MiB, more than {MAX_BATCH_BYTES // 2**20} MiB")


def decoded_bytes(values: pa.RecordBatch | pa.Array) -> int:
    """Size in bytes of the values of a batch or array when its dictionaries are decoded.

    Raises:
        ValueError: a column has a type whose values may be stored once for many rows.
    """
    if isinstance(values, pa.RecordBatch):
        return sum(map(decoded_bytes, values.columns))
    if isinstance(values, pa.ExtensionArray):
        return decoded_bytes(values.storage)
    kind = values.type
    if any(is_type(kind) for is_type in _UNBOUNDED):
        raise ValueError(f"values of the type {kind}, which is not supported")
    if isinstance(values, pa.DictionaryArray):
        size = _dictionary_bytes(values)
    elif pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        lengths = np.frombuffer(values.buffers()[1], np.int32)[::4][values.offset : values.offset + len(values)]
        size = int(lengths.sum(dtype=np.int64))
    elif pa.types.is_map(kind):
        first, end = values.offsets[0].as_py(), values.offsets[-1].as_py()
        size = sum(decoded_bytes(part[first:end]) for part in (values.keys, values.items))
    elif pa.types.is_struct(kind):
        size = sum(map(decoded_bytes, values.flatten()))
    elif pa.types.is_nested(kind):
        size = decoded_bytes(values.flatten())
    else:
        size = values.nbytes
    return size


def _dictionary_bytes(values: pa.DictionaryArray) -> int:
    kind = values.type.value_type
    if any(is_type(kind) for is_type in (pa.types.is_string, pa.types.is_binary)):
        return pc.sum(pc.binary_length(values.dictionary).take(values.indices)).as_py() or 0
    return len(values) * decoded_bytes(values.dictionary)


def check_compressed(mapped: pa.MemoryMappedFile) -> None:
    """Check the size without compression of the batches of an Arrow stream, from the position of ``mapped``.

    Raises:
        DataError: a batch is larger than `MAX_GROUP_BYTES`.
        pyarrow.ArrowException, struct.error, ValueError: the stream is damaged.
    """
    for number, message in enumerate(pa.ipc.MessageReader.open_stream(mapped)):
        if message.type in ("record batch", "dictionary"):
            _check_size(_uncompressed_bytes(message), MAX_GROUP_BYTES, f"batch {number}")


def _uncompressed_bytes(message: pa.ipc.Message) -> int:
    """Size of the buffers of a message without compression, 0 if they are not compressed.

    The layout of metadata is that of Message.fbs in Arrow's format, tables of FlatBuffers.
    """
    metadata, body = message.metadata.to_pybytes(), message.body
    batch = _field(metadata, struct.unpack_from("<I", metadata)[0], 2)
    if message.type == "dictionary":
        batch = _field(metadata, batch, 1)
    if not _field(metadata, batch, 3):
        return 0
    vector = _field(metadata, batch, 2)
    (count,) = struct.unpack_from("<I", metadata, vector)
    buffers = [struct.unpack_from("<qq", metadata, vector + 4 + 16 * i) for i in range(count)]
    return sum(max(struct.unpack_from("<q", body, at)[0], length) for at, length in buffers if length)


def _field(metadata: bytes, table: int, number: int) -> int:
    """Position of what a field of a table refers to; 0 if the table has no such field."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    (size,) = struct.unpack_from("<H", metadata, vtable)
    offset = struct.unpack_from("<H", metadata, vtable + 4 + 2 * number)[0] if 4 + 2 * number < size else 0
    at = table + offset
    return at + struct.unpack_from("<I", metadata, at)[0] if offset else 0


def _check_size(size: int, limit: int, where: str) -> None:
    if size > limit:
        raise DataError(f"{where}: expected at most {limit // 2**20:,} MiB of values, found {size / 2**20:,.0f} MiB")
