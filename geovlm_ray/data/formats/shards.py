"""Shards of Hugging Face datasets, also with embedded images: Parquet, and the Arrow files of ``save_to_disk``."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.arrow_limits import MAX_BATCH_BYTES, bounded_slices, check_compressed, open_parquet
from geovlm_ray.data.formats.base import Source, Unit, short_repr
from geovlm_ray.data.formats.streams import external_link, relative

ENDINGS = (".parquet", ".arrow")
BATCH_ROWS = 32
"""Records of a shard that are in memory at once as Python objects, with their images."""

READ_BUFFER = 2**20
"""Bytes of a column that are read at once, so that a row group may be larger than memory."""
FILE_HEADER_BYTES = 8
"""Bytes of an Arrow file before its stream."""

_CACHE_PREFIX = "cache-"
_SIGNATURES = (
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
    """A record of a shard: its columns without images, and the bytes of the images in each column.

    Image columns are in the order of their names, so that ``jpg_A`` comes before ``jpg_B``. Empty image columns and
    columns with pixels as nested lists of integers are left out.
    """

    fields: dict[str, Any]
    images: dict[str, list[bytes]] = field(repr=False)


def shard_files(source: Source) -> list[Path]:
    """The shards of a source, sorted, without the cache files of the datasets library."""
    if source.path.is_file():
        return [source.path] if source.path.suffix.lower() in ENDINGS else []
    paths = (p for p in source.path.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
    return sorted(p for p in paths if not p.name.startswith(_CACHE_PREFIX))


def holds_images(path: Path) -> bool:
    """Whether a shard has a column of encoded images; False if it cannot be read."""
    try:
        if path.suffix.lower() == ".parquet":
            return bool(_image_columns(pq.read_schema(path)))
        with pa.memory_map(str(path)) as mapped:
            _find_stream(mapped)
            return bool(_image_columns(pa.ipc.open_stream(mapped).schema))
    except (pa.ArrowException, OSError, ValueError):
        return False


def shard_units(path: Path, source: Source) -> Iterator[Unit]:
    """Stream the records of a shard; what cannot be read is a unit with a problem.

    A bad record loses only itself; an error in the file loses everything after it.
    """
    if (link := external_link(path, source)) is not None:
        yield link
        return
    name, number = relative(path, source), 0
    try:
        for batch, schema in _batches(path):
            image_columns = _image_columns(schema)
            for part in bounded_slices(batch, BATCH_ROWS):
                for values in part.to_pylist():
                    number += 1
                    yield _unit(name, number, values, image_columns)
    except (pa.ArrowException, OSError, ValueError, struct.error, DataError) as error:
        reason = " ".join(str(error).split())[:300]
        yield Unit(name, number + 1, problem=f"expected a shard, found an error; nothing after it was read: {reason}")


def stored_name(content: bytes) -> str:
    """The path of an image below the output folder, from the SHA-256 of its bytes.

    Raises:
        DataError: the bytes have no known image signature.
    """
    ending = next((ending for signature, ending in _SIGNATURES if content.startswith(signature)), None)
    if ending is None:
        raise DataError(f"expected the bytes of a JPEG, PNG, TIFF, WebP, GIF or BMP, found {short_repr(content[:16])}")
    digest = hashlib.sha256(content).hexdigest()
    return f"images/{digest[:2]}/{digest}.{ending}"


def _batches(path: Path) -> Iterator[tuple[pa.RecordBatch, pa.Schema]]:
    """The batches of a shard, in which texts may be dictionaries, and its schema, without these."""
    if path.suffix.lower() == ".parquet":
        with open_parquet(path, buffer_size=READ_BUFFER, pre_buffer=False) as (file, schema):
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                most = MAX_BATCH_BYTES * group.num_rows // max(group.total_byte_size, 1)
                rows = min(max(most, 1), BATCH_ROWS)
                for batch in file.iter_batches(rows, row_groups=[number], columns=_columns(schema)):
                    yield batch, schema
        return
    with pa.memory_map(str(path)) as mapped:
        check_compressed(_find_stream(mapped))
        for batch in pa.ipc.open_stream(_find_stream(mapped)):
            # Without validation, a damaged batch is read beyond its end.
            batch.validate(full=True)
            yield batch.select(_columns(batch.schema)), batch.schema


def _find_stream(mapped: pa.MemoryMappedFile) -> pa.MemoryMappedFile:
    """Move to the stream in an Arrow file, or to the start of an Arrow stream, which the datasets library writes."""
    mapped.seek(0)
    mapped.seek(FILE_HEADER_BYTES if mapped.read(6) == b"ARROW1" else 0)
    return mapped


def _columns(schema: pa.Schema) -> list[str]:
    """All columns, without those of pixels as nested lists if another column holds encoded images."""
    has_images = bool(_image_columns(schema))
    return [column.name for column in schema if not (has_images and _is_array(column.type))]


def _image_columns(schema: pa.Schema) -> list[str]:
    return sorted(column.name for column in schema if _holds_images(column.type))


def _is_array(dtype: pa.DataType) -> bool:
    """Whether a column holds pixels: rows of columns of bands, or rows of bytes; lists of boxes are shallower."""
    if not (pa.types.is_list(dtype) and pa.types.is_list(dtype.value_type)):
        return False
    inner = dtype.value_type.value_type
    return pa.types.is_list(inner) or pa.types.is_uint8(inner)


def _holds_images(dtype: pa.DataType) -> bool:
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        return _holds_images(dtype.value_type)
    if pa.types.is_struct(dtype):
        return dtype.get_field_index("bytes") >= 0 and _is_bytes(dtype.field("bytes").type)
    return _is_bytes(dtype)


def _is_bytes(dtype: pa.DataType) -> bool:
    return pa.types.is_binary(dtype) or pa.types.is_large_binary(dtype)


def _unit(name: str, number: int, values: dict[str, Any], image_columns: list[str]) -> Unit:
    fields = {column: _json_value(value) for column, value in values.items() if column not in image_columns}
    try:
        images = {column: list(_image_bytes(column, values[column])) for column in image_columns}
    except DataError as error:
        return Unit(name, number, fields, str(error))
    return Unit(name, number, ShardRecord(fields, {column: found for column, found in images.items() if found}))


def _json_value(value: Any) -> Any:
    """A value as JSON types: dates and decimals as strings, NaN and infinities as null."""
    if isinstance(value, dict):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _image_bytes(column: str, value: Any) -> Iterator[bytes]:
    if isinstance(value, list):
        for item in value:
            yield from _image_bytes(column, item)
    elif isinstance(value, dict):
        if value["bytes"] is None and value.get("path") is not None:
            raise DataError(
                f"{column}: expected the bytes of an image, found only its path {short_repr(value['path'])}"
            )
        yield from _image_bytes(column, value["bytes"])
    elif value:
        yield value
