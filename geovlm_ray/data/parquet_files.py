"""Reading of Parquet files whose columns are known, with errors that name file, row and column."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import check_plain
from geovlm_ray.data.arrow_limits import open_parquet, read_decoded

BATCH_ROWS = 2_000
VERSION_KEY = b"geovlm_ray.schema_version"
"""Key of a schema's version in its metadata."""


def read_batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Read a file in batches.

    Raises:
        DataError: It is not a plain file, not a readable Parquet file, too large, has another schema, or a text that is
            not UTF-8.
    """
    check_plain(path)
    start = 0
    try:
        with open_parquet(path) as (file, found):
            _check_schema(path, found, schema)
            for batch in read_decoded(path, file, found, BATCH_ROWS):
                _check_texts(path, batch, start)
                start += len(batch)
                yield batch
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise DataError(f"{path}: expected a readable Parquet file, found: {' '.join(str(error).split())}") from error


def _check_schema(path: Path, found: pa.Schema, expected: pa.Schema) -> None:
    version, wanted = ((schema.metadata or {}).get(VERSION_KEY) for schema in (found, expected))
    if wanted and version != wanted:
        text = f"version {version.decode(errors='replace')}" if version else "a different schema"
        raise DataError(
            f"{path}: expected schema version {wanted.decode()} of geovlm_ray, found {text}; convert the source again"
        )
    if found.names != expected.names:
        missing = [f"no column {name!r}" for name in expected.names if name not in found.names]
        unknown = [f"the unknown column {name!r:.100}" for name in found.names if name not in expected.names]
        twice = ["a column twice"] if len(set(found.names)) < len(found.names) else []
        problem = [*missing, *unknown, *twice, "them in another order"][0]
        raise DataError(f"{path}: expected the columns of geovlm_ray, {', '.join(expected.names)}, found {problem}")
    for name, kind, expected_kind in zip(found.names, found.types, expected.types, strict=True):
        if kind != expected_kind:
            raise DataError(
                f"{path}: expected column {name!r} of type {expected_kind}, found {kind}; convert the source again"
            )


def _check_texts(path: Path, batch: pa.RecordBatch, start: int) -> None:
    """Raise DataError if a text is not UTF-8; ``start`` is the row of the file at which the batch begins."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            row = next((row for row in range(len(column)) if not _is_readable(column.slice(row, 1))), 0)
            raise DataError(
                f"{path}, row {start + row}: column {name!r}: expected UTF-8 text, found: {error}"
            ) from error


def _is_readable(column: pa.Array) -> bool:
    try:
        column.to_pylist()
    except UnicodeDecodeError:
        return False
    return True
