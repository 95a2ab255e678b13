"""Scored completions as Parquet rows: the columns that the files of rollouts and of predictions share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from geovlm_ray.core.errors import UNREADABLE, DataError, reason_of
from geovlm_ray.core.files import check_plain, write_atomically
from geovlm_ray.core.schema import Example, Sample
from geovlm_ray.data.arrow_limits import open_parquet, read_decoded
from geovlm_ray.data.parquet_files import BATCH_ROWS
from geovlm_ray.data.records import frame_from_json, pixels_from_json, target_from_json
from geovlm_ray.tasks.targets import plain_frame, plain_target

SampleRow = dict[str, Any]
MAX_FILE_BYTES = 2**30
"""Maximum size of the values that are read of a file, because all are in memory, as Python objects."""
COMMON = pa.schema(
    [
        ("example_id", pa.string()),
        ("task", pa.string()),
        ("images", pa.list_(pa.string())),
        ("pixels", pa.string()),
        ("question", pa.string()),
        ("target", pa.string()),
        ("frame", pa.string()),
        ("dialect", pa.string()),
        ("completion", pa.string()),
        ("finish_reason", pa.string()),
        ("format", pa.float64()),
        ("components", pa.string()),
        ("status", pa.string()),
    ]
)
"""Columns of the example, then of the completion; ``pixels``, ``target``, ``frame`` and ``components`` are JSON."""


def schema_with(own: Mapping[str, Mapping[str, pa.DataType]]) -> pa.Schema:
    """`COMMON` with a file's own columns, {common column that they follow, or "" for none: {name: type}}."""
    fields = list(own.get("", {}).items())
    for field in COMMON:
        fields += [(field.name, field.type), *own.get(field.name, {}).items()]
    return pa.schema(fields)


def example_columns(example: Example) -> SampleRow:
    """The common columns of an example."""
    return {
        "example_id": example.id,
        "task": example.task,
        "images": list(example.images),
        "pixels": json.dumps(asdict(example.pixels)),
        "question": example.question,
        "target": json.dumps(plain_target(example.target)),
        "frame": json.dumps(plain_frame(example.frame)),
        "dialect": example.dialect,
    }


def sample_columns(sample: Sample) -> SampleRow:
    """The common columns of a scored completion."""
    assert sample.reward is not None
    return {
        "completion": sample.text,
        "finish_reason": sample.finish_reason,
        "format": sample.reward.format,
        "components": json.dumps(sample.reward.components),
        "status": sample.reward.status,
    }


def row_example(row: Mapping[str, Any]) -> Example:
    """The example of a row, with ``dataset``, ``labels``, ``gsd`` and ``sensor`` if the file has these columns.

    Raises:
        DataError: a column is absent or invalid.
    """
    try:
        return _example(row)
    except UNREADABLE as error:
        raise DataError(f"record {row.get('example_id')!r:.200}: {reason_of(error)}") from error


def _example(row: Mapping[str, Any]) -> Example:
    return Example(
        id=row["example_id"],
        task=row["task"],
        images=tuple(row["images"]),
        question=row["question"],
        target=target_from_json(row["task"], json.loads(row["target"])),
        dataset=row.get("dataset", ""),
        frame=frame_from_json(json.loads(row["frame"])),
        dialect=row["dialect"],
        labels=tuple(row.get("labels", ())),
        gsd=row.get("gsd"),
        sensor=row.get("sensor"),
        pixels=pixels_from_json(json.loads(row["pixels"])),
    )


def write_rows(path: Path, rows: Sequence[SampleRow], schema: pa.Schema) -> None:
    """Write rows as a Parquet file.

    Raises:
        DataError: the file cannot be written.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())


def read_rows(path: Path, columns: Sequence[str] | None = None) -> list[SampleRow]:
    """Read the rows of a Parquet file, or only some of their columns.

    Raises:
        DataError: the file cannot be read, is too large, or lacks a common column.
    """
    check_plain(path)
    rows: list[SampleRow] = []
    size = 0
    try:
        with open_parquet(path) as (file, schema):
            for name in COMMON.names if columns is None else columns:
                if name not in schema.names:
                    raise DataError(f"{path}: expected the column {name!r}, found only {', '.join(schema.names)}")
            wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
            for batch in read_decoded(path, file, wanted, BATCH_ROWS):
                size += batch.nbytes
                if size > MAX_FILE_BYTES:
                    raise DataError(f"{path}: expected at most {MAX_FILE_BYTES // 2**20:,} MiB of values, found more")
                rows += batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: expected a Parquet file of completions, found: {reason}") from error
    return rows
