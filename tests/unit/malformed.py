"""Converted datasets with one fault each, as hand-made or damaged Parquet files have them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from geovlm_ray.core.schema import Box, Example, GroundedText
from geovlm_ray.data.convert import CARD
from geovlm_ray.data.quarantine import FILE as QUARANTINE
from tests.unit.datasets import write_dataset, write_image

SHARD = "part-00000.parquet"
ROW = 1
"""The row with the fault, of the task object detection."""
TRAIN = (
    Example("r0", "vqa", ("a.png",), "How many ships are there?", "2"),
    Example("r1", "object_detection", ("a.png",), "Where are ships?", (Box((10, 20, 30, 40), "ship"),)),
    Example("r2", "grounded_description", ("a.png",), "Describe it.", GroundedText("A pier.", (Box((1, 2, 30, 40)),))),
)
RECORDS = (*TRAIN, Example("r3", "vqa", ("b.png",), "How many ships are there?", "3", split="test"))
Fault = Callable[[Path], None]


def malformed_dataset(folder: Path, fault: Fault) -> Path:
    """A dataset of three training records and a held-out one, with a fault."""
    write_dataset(folder, RECORDS)
    write_image(folder / "a.png", 0)
    write_image(folder / "b.png", 1)
    fault(folder)
    return folder


def _values(folder: Path, column: str, change: Callable[[Any], Any]) -> None:
    """Change a value of `ROW`."""
    table = pq.read_table(folder / SHARD)
    rows = table.to_pylist()
    rows[ROW][column] = change(rows[ROW][column])
    pq.write_table(table.from_pylist(rows, schema=table.schema), folder / SHARD)


def _value(column: str, value: Any) -> Fault:
    return partial(_values, column=column, change=lambda old: value)


def _part(column: str, **values: Any) -> Fault:
    return partial(_values, column=column, change=lambda old: {**old, **values})


def _boxes(*coords: Any) -> Fault:
    return _part("target", boxes=[{"coords": list(row) if row else row, "label": None} for row in coords])


def _pixels(**values: Any) -> Fault:
    default = {"bands": [], "percentiles": [2.0, 98.0], "value_range": None, "nodata": None}
    return _value("pixels", {**default, **values})


def _columns(change: Callable[[pa.Table], pa.Table]) -> Fault:
    def fault(folder: Path) -> None:
        pq.write_table(change(pq.read_table(folder / SHARD)), folder / SHARD)

    return fault


def _column_as(name: str, change: Callable[[pa.ChunkedArray], Any]) -> Fault:
    return _columns(lambda t: t.set_column(t.schema.get_field_index(name), name, change(t[name])))


def _bytes(change: Callable[[bytes], bytes], name: str = SHARD) -> Fault:
    return lambda folder: _write(folder / name, change((folder / name).read_bytes()))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _replaced(make: Callable[[Path], object]) -> Fault:
    def fault(folder: Path) -> None:
        (folder / SHARD).unlink()
        make(folder / SHARD)

    return fault


def _not_utf8(column: pa.ChunkedArray) -> pa.Array:
    """The texts of a column with a byte that is not UTF-8 in `ROW`, which Arrow does not check."""
    texts = [text.encode() for text in column.to_pylist()]
    texts[ROW] = b"\xff" + texts[ROW][1:]
    return pa.array(texts, type=pa.binary()).view(pa.string())


def _quarantine(**columns: Any) -> Fault:
    return lambda folder: pq.write_table(pa.table(columns), folder / QUARANTINE)


IN_ROW: dict[str, tuple[Fault, str]] = {
    "null id": (_value("id", None), "id: expected text, found null"),
    "null task": (_value("task", None), "task: expected"),
    "null images": (_value("images", None), "images: expected a list, found null"),
    "null image": (_value("images", ["a.png", None]), "images: expected text, found null"),
    "null question": (_value("question", None), "question: expected text, found null"),
    "null target": (_value("target", None), "target: expected texts and boxes, found null"),
    "null texts": (_part("target", texts=None), "target: expected a list of texts, found null"),
    "null boxes": (_part("target", boxes=None), "target: expected a list of boxes, found null"),
    "null box": (_part("target", boxes=[None]), "target: box 1: expected coordinates, found null"),
    "null coordinates": (_boxes(None), "target: box 1: expected coordinates, found null"),
    "null coordinate": (_boxes((1, 2, None, 4)), "target: box 1: expected finite coordinates of at most 1e.06, found"),
    "NaN": (_boxes((1, 2, 3, 4), (1, 2, float("nan"), 4)), "target: box 2: expected finite coordinates"),
    "infinity": (_boxes((1, 2, float("inf"), 4)), "target: box 1: expected finite coordinates"),
    "3 coordinates": (_boxes((1, 2, 3)), "target: box 1: expected 4 or 5 numbers, found 3"),
    "6 coordinates": (_boxes((1, 2, 3, 4, 5, 6)), "target: box 1: expected 4 or 5 numbers, found 6"),
    "no text": (
        lambda folder: (_value("task", "vqa")(folder), _part("target", texts=[], boxes=[])(folder))[0],
        "target: expected one text, found none",
    ),
    "unknown task": (_value("task", "dreaming"), "task: expected one of scene_classification"),
    "unknown dialect": (_value("dialect", "runes"), "dialect: expected one of brackets, .*found 'runes'"),
    "null frame": (_value("frame", None), "frame: expected kind, width and height, found null"),
    "null width": (_part("frame", kind="pixel", width=None), "frame: expected .*, found .*None"),
    "unknown frame": (_part("frame", kind="furlongs"), "frame: expected percent, permille or pixel .*'furlongs'"),
    "NaN frame": (_part("frame", kind="pixel", width=float("nan"), height=9.0), "frame: expected .*nan"),
    "null labels": (_value("labels", None), "labels: expected a list, found null"),
    "null split": (_value("split", None), "split: expected text, found null"),
    "huge id": (_value("id", "x" * 10**5), "id: expected at most 1,000 characters, found 100,000"),
    "huge question": (
        _value("question", "x" * 10**5 + "x"),
        "question: expected at most 100,000 characters, found",
    ),
    "band 0": (_pixels(bands=[0]), r"pixels: bands: expected none, one or three numbers from 1, found \(0,\)"),
    "null band": (_pixels(bands=[None]), r"pixels: bands: expected numbers, found \[None\]"),
    "1 percentile": (_pixels(percentiles=[2.0]), "pixels: percentiles: expected 0 <= low < high <= 100"),
    "null percentiles": (_pixels(percentiles=None), "pixels: percentiles: expected numbers, found None"),
    "percentiles reversed": (_pixels(percentiles=[98.0, 2.0]), "pixels: percentiles: expected 0 <= low < high"),
    "3 values in a range": (_pixels(value_range=[0.0, 1.0, 2.0]), "pixels: value_range: expected low < high"),
    "infinite range": (_pixels(value_range=[0.0, float("inf")]), "pixels: value_range: expected low < high"),
    "no JSON": (_value("extra", "{"), "extra: expected a JSON object, found '{'"),
    "no JSON object": (_value("extra", "[1]"), r"extra: expected a JSON object, found '\[1\]'"),
    "deep JSON": (_value("extra", "[" * 10**5), "extra: expected a JSON object, found"),
    "null source": (_value("source_file", None), "source_file: expected text, found null"),
    "not UTF-8": (_column_as("question", _not_utf8), "column 'question': expected UTF-8 text"),
}
"""Faults in one row, and what the error says after shard and row."""

IN_FILE: dict[str, tuple[Fault, str]] = {
    "truncated": (_bytes(lambda content: content[:-100]), f"{SHARD}: expected a readable Parquet file"),
    "wrong magic": (_bytes(lambda content: b"RAP1" + content[4:-4] + b"RAP1"), f"{SHARD}: expected a readable"),
    "empty": (_bytes(lambda content: b""), f"{SHARD}: expected a readable Parquet file"),
    "damaged page": (_bytes(lambda c: c[:200] + bytes(400) + c[600:]), f"{SHARD}: expected a readable Parquet file"),
    "folder": (_replaced(Path.mkdir), f"{SHARD}: expected a file, found a folder"),
    "pipe": (_replaced(os.mkfifo), f"{SHARD}: expected a file, found a pipe, socket or device"),
    "another table": (
        lambda folder: pq.write_table(pa.table({"id": ["r0"]}), folder / SHARD),
        f"{SHARD}: expected schema version 1 of geovlm_ray, found a different schema",
    ),
    "version": (
        _columns(lambda t: t.replace_schema_metadata({"geovlm_ray.schema_version": b"\xff2"})),
        f"{SHARD}: expected schema version 1 of geovlm_ray, found version .*2; convert the source again",
    ),
    "extra column": (
        _columns(lambda t: t.append_column("note", pa.array(["a"] * len(t)))),
        f"{SHARD}: expected the columns of .*, found the unknown column 'note'",
    ),
    "missing column": (_columns(lambda t: t.drop_columns("gsd")), f"{SHARD}: .*, found no column 'gsd'"),
    "column twice": (_columns(lambda t: t.append_column("gsd", t["gsd"])), f"{SHARD}: .*, found a column twice"),
    "order": (_columns(lambda t: t.select(t.column_names[::-1])), f"{SHARD}: .*, found them in another order"),
    "dictionary": (
        _column_as("question", lambda column: column.dictionary_encode()),
        f"{SHARD}: expected column 'question' of type string, found dictionary",
    ),
    "large string": (
        _column_as("question", lambda column: column.cast(pa.large_string())),
        f"{SHARD}: expected column 'question' of type string, found large_string",
    ),
    "timestamp": (
        _column_as("source_record", lambda column: column.cast(pa.timestamp("s"))),
        f"{SHARD}: expected column 'source_record' of type int64, found timestamp",
    ),
    "card": (_bytes(lambda content: b"{", CARD), f"{CARD}: expected a JSON object, found no JSON"),
    "card of deep JSON": (_bytes(lambda content: b"[" * 10**5, CARD), f"{CARD}: expected a JSON object, found no"),
    "card in another form": (_bytes(lambda content: b"[]", CARD), f"{CARD}: expected a JSON object, found list"),
    "image root is no text": (
        _bytes(lambda content: b'{"image_root": null}', CARD),
        f"{CARD}, image_root: expected text, found None",
    ),
    "image root with a null byte": (
        _bytes(lambda content: b'{"image_root": "\\u0000"}', CARD),
        f"{CARD}, image_root: expected the path of a folder, found",
    ),
    "quarantine is no Parquet": (
        lambda folder: _write(folder / QUARANTINE, b"PAR1"),
        f"{QUARANTINE}: expected a readable Parquet file",
    ),
    "quarantine of other columns": (
        _quarantine(reason=["bad"], row=[1]),
        f"{QUARANTINE}: expected the columns of .*, found no column 'stage'",
    ),
}
"""Faults of a whole file, and what the error says."""
