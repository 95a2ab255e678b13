"""The one Parquet schema of all datasets, tasks and numbers of images."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.pixels import PixelSettings
from geovlm_ray.core.schema import Box, Example, GroundedText, Target
from geovlm_ray.data.records import pixels_from_json
from geovlm_ray.tasks import TASKS

VERSION = 1
VERSION_KEY = b"geovlm_ray.schema_version"
_DEFAULT_PIXELS = PixelSettings()


@dataclass(frozen=True)
class Row:
    """One record as it stands in Parquet: the example, and what is known about where it comes from.

    ``source_file`` is relative to the source, ``source_record`` counts its records from 1 (in JSON lines and text
    that is the line). ``extra`` keeps those fields of the source that the example does not reproduce, so that a
    format can be written back without loss. ``parts`` says of how many entries of the source the record is made (the
    annotations of a class in an image), against which entries that are set aside are held; it is not stored.
    """

    example: Example
    source_file: str = ""
    source_record: int = 0
    licence: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    parts: int = 1


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

# Name, type, what it holds, and how it is read off a row.
_COLUMNS: tuple[tuple[str, pa.DataType, str, Callable[[Row], Any]], ...] = (
    ("id", pa.string(), "name of the record in its dataset", lambda r: r.example.id),
    ("task", pa.string(), "one of geovlm_ray.core.schema.TASK_NAMES", lambda r: r.example.task),
    ("images", pa.list_(pa.string()), "paths relative to the image root, in order", lambda r: r.example.images),
    ("question", pa.string(), "the prompt's words, without image placeholders", lambda r: r.example.question),
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
    ("dialect", pa.string(), "how an answer writes boxes (geovlm_ray.tasks.boxes)", lambda r: r.example.dialect),
    ("labels", pa.list_(pa.string()), "vocabulary of the dataset; empty where it has none", lambda r: r.example.labels),
    ("reasoning", pa.string(), "chain of thought; null where there is none", lambda r: r.example.reasoning),
    ("dataset", pa.string(), "name of the dataset", lambda r: r.example.dataset),
    ("split", pa.string(), "train, validation, test or the dataset's own name", lambda r: r.example.split),
    ("sensor", pa.string(), "such as Sentinel-2; null where unknown", lambda r: r.example.sensor),
    ("gsd", pa.float64(), "ground sampling distance in metres per pixel; null where unknown", lambda r: r.example.gsd),
    (
        "pixels",
        _PIXELS,
        "how bands become RGB (geovlm_ray.core.pixels.PixelSettings); null for the defaults",
        lambda r: _plain_pixels(r.example.pixels),
    ),
    ("licence", pa.string(), "note on the licence; empty where unknown", lambda r: r.licence),
    ("source_file", pa.string(), "file of the source, relative to it", lambda r: r.source_file),
    ("source_record", pa.int64(), "number of the record in that file, from 1", lambda r: r.source_record),
    (
        "extra",
        pa.string(),
        "JSON object: fields of the source that the other columns do not reproduce",
        lambda r: json.dumps(r.extra, ensure_ascii=False) if r.extra else "{}",
    ),
)

SCHEMA = pa.schema(
    [pa.field(name, kind, metadata={b"description": text.encode()}) for name, kind, text, _ in _COLUMNS],
    metadata={VERSION_KEY: str(VERSION).encode()},
)


def to_table(rows: Sequence[Row]) -> pa.Table:
    """Rows as a table of `SCHEMA`.

    Raises:
        pyarrow.ArrowInvalid, UnicodeEncodeError: a text is no valid Unicode.
    """
    arrays = [pa.array([read(row) for row in rows], type=kind) for _, kind, _, read in _COLUMNS]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def to_row(values: Mapping[str, Any]) -> Row:
    """The row behind one record of a table, as ``to_pylist`` gives it."""
    pixels = values["pixels"]
    example = Example(
        id=values["id"],
        task=values["task"],
        images=tuple(values["images"]),
        question=values["question"],
        target=_typed_target(values["task"], values["target"]),
        dataset=values["dataset"],
        split=values["split"],
        frame=Frame(**values["frame"]),
        dialect=values["dialect"],
        labels=tuple(values["labels"]),
        reasoning=values["reasoning"],
        gsd=values["gsd"],
        sensor=values["sensor"],
        pixels=_DEFAULT_PIXELS if pixels is None else pixels_from_json(pixels),
    )
    extra = json.loads(values["extra"])
    return Row(example, values["source_file"], values["source_record"], values["licence"], extra)


def _plain_target(target: Target) -> dict[str, Any]:
    if isinstance(target, str):
        return {"texts": [target], "boxes": []}
    if isinstance(target, GroundedText):
        return {"texts": [target.text], "boxes": [_plain_box(b) for b in target.boxes]}
    return {
        "texts": [t for t in target if isinstance(t, str)],
        "boxes": [_plain_box(b) for b in target if isinstance(b, Box)],
    }


def _plain_box(box: Box) -> dict[str, Any]:
    return {"coords": box.coords, "label": box.label}


def _typed_target(task: str, value: Mapping[str, Any]) -> Target:
    kind = TASKS[task].target_kind
    if kind in ("classes", "captions"):
        return tuple(value["texts"])
    if kind == "vqa":
        return str(value["texts"][0])
    boxes = tuple(Box(tuple(b["coords"]), b["label"]) for b in value["boxes"])
    return GroundedText(value["texts"][0], boxes) if kind == "grounded" else boxes


def _plain_pixels(pixels: PixelSettings) -> dict[str, Any] | None:
    if pixels == _DEFAULT_PIXELS:
        return None
    return {
        "bands": pixels.bands,
        "percentiles": pixels.percentiles,
        "value_range": pixels.value_range,
        "nodata": pixels.nodata,
    }
