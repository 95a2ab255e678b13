"""The Parquet schema shared by all datasets and tasks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.pixels import PixelSettings
from geovlm_ray.core.schema import Box, Example, GroundedText, Target, target_boxes, target_texts
from geovlm_ray.data.parquet_files import VERSION_KEY
from geovlm_ray.data.records import is_coordinate, pixels_from_json, short_repr
from geovlm_ray.tasks import TargetKind, find_task
from geovlm_ray.tasks.answers.box_dialects import DIALECTS, MAX_COORDINATE

VERSION = 1
_DEFAULT_PIXELS = PixelSettings()
_PLAIN_FIELDS = ("id", "task", "question", "dataset", "split", "dialect", "reasoning", "gsd", "sensor")
UNCLEAR = "unclear"
"""Key in ``extra``: classes of which a picture may show more objects than its records have, such as invalid ones."""
ROTATED = "answers_rotated"
"""Key in the column ``extra`` for `Example.rotated`."""
_TEXTS = ("id", "task", "question", "dataset", "split", "dialect", "licence", "source_file", "extra")
"""Text columns without null."""
_MAX_CHARS = {"id": 1_000, "question": 100_000, "reasoning": 100_000}
"""Longest texts: ids are written into messages, and a question must fit into the context of a model."""


@dataclass(frozen=True)
class Row:
    """One record as stored in Parquet: the example and its provenance.

    ``source_file`` is relative to the source; ``source_record`` is the record number in that file, from 1 (in JSON
    lines and text files, the line number). ``extra`` keeps the source fields that the example does not reproduce, so
    that a format can be written back without loss. ``parts`` is the number of source entries in the record (such as the
    annotations of a class in an image), for the fraction of quarantined entries. ``files`` are to be written below the
    output folder (path: content). ``unread`` names the keys of the source record that the format does not use, for the
    summary of the conversion. With ``is_empty``, the row is no record but a picture that is known to show no objects,
    for `geovlm_ray.data.negatives`; it needs no question. None of the four is stored.
    """

    example: Example
    source_file: str = ""
    source_record: int = 0
    licence: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    parts: int = 1
    files: Mapping[str, bytes] = field(default_factory=dict)
    unread: Sequence[str] = ()
    is_empty: bool = False


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


def _extra_text(row: Row) -> str:
    extra = {**row.extra, ROTATED: True} if row.example.rotated else row.extra
    return json.dumps(extra, ensure_ascii=False) if extra else "{}"


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
        _extra_text,
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
        DataError: A value is null or invalid; the message begins with the column.
    """
    for name in _TEXTS:
        if values[name] is None:
            raise DataError(f"{name}: expected text, found null")
    for name, limit in _MAX_CHARS.items():
        if values[name] is not None and len(values[name]) > limit:
            raise DataError(f"{name}: expected at most {limit:,} characters, found {len(values[name]):,}")
    if values["source_record"] is None:
        raise DataError("source_record: expected a number, found null")
    kind = find_task(values["task"], f"record {values['id']!r}: ").target_kind
    if values["dialect"] not in DIALECTS:
        raise DataError(f"dialect: expected one of {', '.join(DIALECTS)}, found {short_repr(values['dialect'])}")
    extra = _extra(values["extra"])
    example = Example(
        images=_texts("images", values["images"]),
        target=_typed_target(kind, values["target"]),
        frame=_frame(values["frame"]),
        labels=_texts("labels", values["labels"]),
        pixels=_DEFAULT_PIXELS if values["pixels"] is None else _pixels(values["pixels"]),
        rotated=extra.pop(ROTATED, False) is True,
        **{name: values[name] for name in _PLAIN_FIELDS},
    )
    return Row(example, values["source_file"], values["source_record"], values["licence"], extra)


def _plain_target(target: Target) -> dict[str, Any]:
    return {"texts": target_texts(target), "boxes": [vars(box) for box in target_boxes(target)]}


def _texts(column: str, value: Sequence[str | None] | None) -> tuple[str, ...]:
    if value is None:
        raise DataError(f"{column}: expected a list, found null")
    if None in value:
        raise DataError(f"{column}: expected text, found null")
    return tuple(text for text in value if text is not None)


def _frame(value: Mapping[str, Any] | None) -> Frame:
    if value is None:
        raise DataError("frame: expected kind, width and height, found null")
    kind, width, height = value["kind"], value["width"], value["height"]
    has_size = width is not None and height is not None
    if (
        kind not in ("percent", "permille", "pixel")
        or not has_size
        or (kind == "pixel" and not _is_size(width, height))
    ):
        raise DataError(
            f"frame: expected percent, permille or pixel with a size above 0 of at most {MAX_COORDINATE:g}, found "
            f"{short_repr(value)}"
        )
    return Frame(kind, width, height)


def _is_size(width: float, height: float) -> bool:
    return 0 < width <= MAX_COORDINATE and 0 < height <= MAX_COORDINATE


def _pixels(value: Mapping[str, Any]) -> PixelSettings:
    for name in ("bands", "percentiles", "value_range"):
        numbers = value[name]
        if None in numbers if numbers is not None else name != "value_range":
            raise DataError(f"pixels: {name}: expected numbers, found {short_repr(numbers)}")
    try:
        return pixels_from_json(value)
    except ValueError as error:
        raise DataError(f"pixels: {error}") from error


def _extra(text: str) -> dict[str, Any]:
    value: Any = None
    with suppress(ValueError, RecursionError):
        value = json.loads(text)
    if not isinstance(value, dict):
        raise DataError(f"extra: expected a JSON object, found {short_repr(text)}")
    return value


def _typed_target(kind: TargetKind, value: Mapping[str, Any] | None) -> Target:
    if value is None:
        raise DataError("target: expected texts and boxes, found null")
    texts, boxes = value["texts"], value["boxes"]
    if texts is None or boxes is None:
        raise DataError(f"target: expected a list of {'texts' if texts is None else 'boxes'}, found null")
    texts = _texts("target", texts)
    if kind in ("classes", "captions"):
        return texts
    if kind in ("vqa", "grounded") and not texts:
        raise DataError("target: expected one text, found none")
    if kind == "vqa":
        return texts[0]
    typed = tuple(_box(n, box) for n, box in enumerate(boxes, 1))
    return GroundedText(texts[0], typed) if kind == "grounded" else typed


def _box(number: int, value: Mapping[str, Any] | None) -> Box:
    coords = None if value is None else value["coords"]
    if value is None or coords is None:
        raise DataError(f"target: box {number}: expected coordinates, found null")
    if not all(map(is_coordinate, coords)):
        raise DataError(
            f"target: box {number}: expected finite coordinates of at most {MAX_COORDINATE:g}, found "
            f"{short_repr(coords)}"
        )
    if len(coords) not in (4, 5):
        raise DataError(f"target: box {number}: expected 4 or 5 numbers, found {len(coords)}: {short_repr(coords)}")
    return Box(tuple(coords), value["label"])
