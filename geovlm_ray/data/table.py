"""The Parquet schema shared by all datasets and tasks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.pixels import PixelSettings
from geovlm_ray.core.schema import Box, Example, GroundedText, Target, target_boxes, target_texts
from geovlm_ray.data.records import pixels_from_json
from geovlm_ray.tasks import TargetKind, find_task

VERSION = 1
VERSION_KEY = b"geovlm_ray.schema_version"
_DEFAULT_PIXELS = PixelSettings()
_PLAIN_FIELDS = ("id", "task", "question", "dataset", "split", "dialect", "reasoning", "gsd", "sensor")


@dataclass(frozen=True)
class Row:
    """One record as stored in Parquet: the example and its provenance.

    ``source_file`` is relative to the source; ``source_record`` is the record number in that file, from 1 (in JSON
    lines and text files, the line number). ``extra`` keeps the source fields that the example does not reproduce, so
    that a format can be written back without loss. ``parts`` is the number of source entries in the record (such as the
    annotations of a class in an image), for the fraction of quarantined entries. ``files`` are to be written below the
    output folder (path: content). ``unread`` names the keys of the source record that the format does not use, for the
    summary of the conversion. None of the three is stored.
    """

    example: Example
    source_file: str = ""
    source_record: int = 0
    licence: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    parts: int = 1
    files: Mapping[str, bytes] = field(default_factory=dict)
    unread: Sequence[str] = ()


_BOX = pa.struct([("coords", pa.list_(pa.float64())), ("label", pa.string())])
_FRAME = pa.struct([("kind", pa.string()), ("width", pa.float64()), ("height", pa.float64())])
_TARGET = pa.struct([("texts", pa.list_(pa.string())), ("boxes", pa.list_(_BOX))])
_PIXELS = pa.struct(
    [
        ("bands", pa.list_(pa.int32())),
        ("percentiles", pa.list_(pa.float64())),
        ("value_range", pa.list_(pa.float64())),
        ("nodata", pa.float64()),
    ]
)

# Name, type, description and getter of each column.
_COLUMNS: tuple[tuple[str, pa.DataType, str, Callable[[Row], Any]], ...] = (
    ("id", pa.string(), "record id in its dataset", lambda r: r.example.id),
    ("task", pa.string(), "name of a task (geovlm_ray.tasks.TASKS)", lambda r: r.example.task),
    ("images", pa.list_(pa.string()), "paths relative to the image root, in order", lambda r: r.example.images),
    ("question", pa.string(), "question text, without image placeholders", lambda r: r.example.question),
    (
        "target",
        _TARGET,
        "texts: class names, the VQA answer, alternative captions or the grounded text; boxes: 4 numbers x1 y1 x2 y2, "
        "or 5 with an angle in degrees, each with a label or null",
        lambda r: _plain_target(r.example.target),
    ),
    (
        "frame",
        _FRAME,
        "units of boxes: percent, permille, or pixel of an image of width x height",
        lambda r: {"kind": r.example.frame.kind, "width": r.example.frame.width, "height": r.example.frame.height},
    ),
    (
        "dialect",
        pa.string(),
        "box format of the answer (tasks.answers.box_dialects)",
        lambda r: r.example.dialect,
    ),
    ("labels", pa.list_(pa.string()), "class vocabulary of the dataset; may be empty", lambda r: r.example.labels),
    ("reasoning", pa.string(), "chain of thought; null if absent", lambda r: r.example.reasoning),
    ("dataset", pa.string(), "name of the dataset", lambda r: r.example.dataset),
    ("split", pa.string(), "train, validation, test or the dataset's own name", lambda r: r.example.split),
    ("sensor", pa.string(), "such as Sentinel-2; null if unknown", lambda r: r.example.sensor),
    ("gsd", pa.float64(), "ground sampling distance in metres per pixel; null if unknown", lambda r: r.example.gsd),
    (
        "pixels",
        _PIXELS,
        "conversion of bands to RGB (geovlm_ray.core.pixels.PixelSettings); null for the defaults",
        lambda r: None if r.example.pixels == _DEFAULT_PIXELS else vars(r.example.pixels),
    ),
    ("licence", pa.string(), "licence note; empty if unknown", lambda r: r.licence),
    ("source_file", pa.string(), "file of the source, relative to it", lambda r: r.source_file),
    ("source_record", pa.int64(), "record number in that file, from 1", lambda r: r.source_record),
    (
        "extra",
        pa.string(),
        "JSON object of the source fields that the other columns do not reproduce",
        lambda r: json.dumps(r.extra, ensure_ascii=False) if r.extra else "{}",
    ),
)

SCHEMA = pa.schema(
    [pa.field(name, kind, metadata={b"description": text.encode()}) for name, kind, text, _ in _COLUMNS],
    metadata={VERSION_KEY: str(VERSION).encode()},
)


def to_table(rows: Sequence[Row]) -> pa.Table:
    """Build a table with `SCHEMA` from rows.

    Raises:
        pyarrow.ArrowInvalid, UnicodeEncodeError: A text is not valid Unicode.
    """
    arrays = [pa.array([get(row) for row in rows], type=kind) for _, kind, _, get in _COLUMNS]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def to_row(values: Mapping[str, Any]) -> Row:
    """Build a row from one record of ``Table.to_pylist``.

    Raises:
        DataError: There is no such task.
    """
    kind = find_task(values["task"], f"record {values['id']!r}: ").target_kind
    pixels = values["pixels"]
    example = Example(
        images=tuple(values["images"]),
        target=_typed_target(kind, values["target"]),
        frame=Frame(**values["frame"]),
        labels=tuple(values["labels"]),
        pixels=_DEFAULT_PIXELS if pixels is None else pixels_from_json(pixels),
        **{name: values[name] for name in _PLAIN_FIELDS},
    )
    extra = json.loads(values["extra"])
    return Row(example, values["source_file"], values["source_record"], values["licence"], extra)


def _plain_target(target: Target) -> dict[str, Any]:
    return {"texts": target_texts(target), "boxes": [vars(box) for box in target_boxes(target)]}


def _typed_target(kind: TargetKind, value: Mapping[str, Any]) -> Target:
    if kind in ("classes", "captions"):
        return tuple(value["texts"])
    if kind == "vqa":
        return str(value["texts"][0])
    boxes = tuple(Box(tuple(b["coords"]), b["label"]) for b in value["boxes"])
    return GroundedText(value["texts"][0], boxes) if kind == "grounded" else boxes
