"""Shards of Hugging Face datasets, images inside: Parquet files, and the Arrow files of ``save_to_disk``."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.formats.base import Source, Unit, shown
from geovlm_ray.data.formats.streams import outside, relative

ENDINGS = (".parquet", ".arrow")
ROWS_AT_ONCE = 32
"""Records of a shard that are in memory as Python values; each brings its images."""

BUFFER = 2**20
"""Bytes of a column that are read at once, so that a row group may be larger than the memory is."""

_CACHE = "cache-"
_KINDS = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"II*\x00", "tif"),
    (b"MM\x00*", "tif"),
    (b"II+\x00", "tif"),
    (b"MM\x00+", "tif"),
    (b"RIFF", "webp"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
)


@dataclass(frozen=True)
class ShardRecord:
    """One record of a shard: its columns without the images, and the images' bytes in the order of their columns.

    Columns are in the order of their names, so that ``jpg_A`` comes before ``jpg_B``; empty ones are left out, and so
    are those that hold pixels as nested lists.
    """

    fields: dict[str, Any]
    images: list[bytes] = field(repr=False)


def shard_files(source: Source) -> list[Path]:
    """The shards of a source in order, without the caches that the datasets library leaves beside them."""
    if source.path.is_file():
        return [source.path] if source.path.suffix.lower() in ENDINGS else []
    found = (p for p in source.path.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
    return sorted(p for p in found if not p.name.startswith(_CACHE))


def shard_units(path: Path, source: Source) -> Iterator[Unit]:
    """The records of a shard, some at a time; what cannot be read is a unit with its problem.

    A bad record costs itself alone, a fault of the file everything from there on.
    """
    if (away := outside(path, source)) is not None:
        yield away
        return
    name, number = relative(path, source), 0
    try:
        for batch in _batches(path):
            pictures = _image_columns(batch.schema)
            for values in batch.to_pylist():
                number += 1
                yield _unit(name, number, values, pictures)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        yield Unit(name, number + 1, problem=f"expected a shard, found a fault; nothing after it was read: {reason}")


def stored_name(content: bytes) -> str:
    """Where the bytes of an image are stored below an output: the same bytes always at the same place.

    Raises:
        DataError: they begin like no kind of image.
    """
    kind = next((kind for begin, kind in _KINDS if content.startswith(begin)), None)
    if kind is None:
        raise DataError(f"expected the bytes of a JPEG, PNG, TIFF, WebP, GIF or BMP, found {shown(content[:16])}")
    digest = hashlib.sha256(content).hexdigest()
    return f"images/{digest[:2]}/{digest}.{kind}"


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    if path.suffix.lower() == ".parquet":
        with pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False) as file:
            columns = _columns(file.schema_arrow)
            yield from file.iter_batches(ROWS_AT_ONCE, columns=columns)
        return
    with pa.memory_map(str(path)) as mapped:
        for batch in _arrow_batches(mapped):
            # A damaged batch would otherwise be read beyond its end.
            batch.validate(full=True)
            wanted = batch.select(_columns(batch.schema))
            for start in range(0, len(batch), ROWS_AT_ONCE):
                yield wanted.slice(start, ROWS_AT_ONCE)


def _arrow_batches(mapped: pa.MemoryMappedFile) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow file, or of an Arrow stream, which the datasets library writes."""
    if mapped.read(6) == b"ARROW1":
        reader = pa.ipc.open_file(mapped)
        yield from map(reader.get_batch, range(reader.num_record_batches))
    else:
        mapped.seek(0)
        yield from pa.ipc.open_stream(mapped)


def _columns(schema: pa.Schema) -> list[str]:
    """All columns but those that hold pixels as nested lists of numbers.

    Raises:
        ValueError: none holds images.
    """
    if not _image_columns(schema):
        found = ", ".join(f"{column.name} ({column.type})" for column in schema)
        raise ValueError(f"a column of images as bytes is needed, the columns are {found}")
    return [column.name for column in schema if not _is_array(column.type)]


def _image_columns(schema: pa.Schema) -> list[str]:
    return sorted(column.name for column in schema if _holds_images(column.type))


def _is_array(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and pa.types.is_list(kind.value_type)


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _holds_images(kind.value_type)
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _unit(name: str, number: int, values: dict[str, Any], pictures: list[str]) -> Unit:
    fields = {column: _plain(value) for column, value in values.items() if column not in pictures}
    try:
        images = [content for column in pictures for content in _contents(column, values[column])]
    except DataError as error:
        return Unit(name, number, fields, str(error))
    return Unit(name, number, ShardRecord(fields, images))


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: dates and decimals as text, NaN as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _contents(name: str, value: Any) -> Iterator[bytes]:
    if isinstance(value, list):
        for item in value:
            yield from _contents(name, item)
    elif isinstance(value, dict):
        if value["bytes"] is None and value.get("path") is not None:
            raise DataError(f"{name}: expected the bytes of an image, found only its path {shown(value['path'])}")
        yield from _contents(name, value["bytes"])
    elif value:
        yield value
