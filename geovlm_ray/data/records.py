"""Parsing of targets, frames and scoring records from JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geovlm_ray.core.errors import DataError, did_you_mean
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.pixels import PixelSettings
from geovlm_ray.core.schema import Box, Example, GroundedText, Target
from geovlm_ray.tasks import find_task
from geovlm_ray.tasks.answers.box_dialects import DIALECTS, MAX_COORDINATE

BOX_KEYS = ("box", "label")
"""The keys of a box as an object."""


def is_coordinate(value: Any) -> bool:
    """Whether a value is a number, not a bool, of at most `MAX_COORDINATE`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_COORDINATE


def field_of(record: Any, key: str, kind: type | tuple[type, ...] = str) -> Any:
    """The value of a key, checked for its type; a bool does not pass as an int.

    Raises:
        DataError: the record is not an object, or the key is missing or has another type.
    """
    if not isinstance(record, dict):
        raise DataError(f"expected an object, found {short_repr(record)}")
    value = record.get(key)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    if key not in record:
        raise DataError(f"expected the key {key!r}, found only {', '.join(map(repr, record)) or 'none'}"[:500])
    expected = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
    raise DataError(f"{key}: expected {expected}, found {short_repr(value)}")


def short_repr(value: Any) -> str:
    """``repr`` of a value for error messages, at most 120 characters."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def target_from_json(task: str, value: Any) -> Target:
    """Parse the target of a task.

    Raises:
        DataError: There is no such task, or the value does not have the form of its targets.
    """
    kind = find_task(task).target_kind
    if kind == "vqa":
        if not isinstance(value, str):
            raise DataError(f"target of {task}: expected a string, found {short_repr(value)}")
        return value
    if kind in ("classes", "captions"):
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not values or not all(isinstance(v, str) for v in values):
            raise DataError(f"target of {task}: expected a list of strings, found {short_repr(value)}")
        return tuple(values)
    if kind == "boxes":
        return _boxes_from_json(task, value)
    if not isinstance(value, Mapping) or not isinstance(value.get("text"), str) or "boxes" not in value:
        raise DataError(f'target of {task}: expected {{"text": ..., "boxes": [...]}}, found {short_repr(value)}')
    return GroundedText(value["text"], _boxes_from_json(task, value["boxes"]))


def frame_from_json(value: Any) -> Frame:
    """Parse a frame; the inverse of `geovlm_ray.tasks.targets.plain_frame`.

    Raises:
        DataError: The value is neither percent, permille nor a pixel frame.
    """
    if value in ("percent", "permille"):
        return Frame(value)
    size = value.get("pixel") if isinstance(value, Mapping) else None
    if isinstance(size, list) and len(size) == 2 and all(is_coordinate(v) and v > 0 for v in size):
        return Frame("pixel", float(size[0]), float(size[1]))
    raise DataError(f'frame: expected "percent", "permille" or {{"pixel": [width, height]}}, found {short_repr(value)}')


def pixels_from_json(value: Mapping[str, Any]) -> PixelSettings:
    """Pixel settings from their fields, as stored in JSON and Parquet."""
    fields: Any = {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}
    return PixelSettings(**fields)


def scoring_record(value: Any) -> tuple[Example, str]:
    """Parse a record ``{"id", "task", "response", "target", ...}`` into an example and a response.

    Optional keys: ``frame``, ``dialect``, ``labels`` and ``question``.

    Raises:
        DataError: A key is absent or has an invalid value.
    """
    if not isinstance(value, Mapping):
        raise DataError(f"expected an object, found {short_repr(value)}")
    for key in ("id", "task", "response", "target"):
        if key not in value:
            raise DataError(f"expected the key {key!r}, found only {', '.join(map(repr, value))}")
    for key in ("task", "response"):
        if not isinstance(value[key], str):
            raise DataError(f"{key}: expected a string, found {short_repr(value[key])}")
    dialect = value.get("dialect", "brackets")
    if not isinstance(dialect, str) or dialect not in DIALECTS:
        raise DataError(f"dialect: expected one of {', '.join(DIALECTS)}, found {short_repr(dialect)}")
    labels = value.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
        raise DataError(f"labels: expected a list of strings, found {short_repr(labels)}")
    example = Example(
        id=str(value["id"]),
        task=value["task"],
        images=(),
        question=str(value.get("question", "")),
        target=target_from_json(value["task"], value["target"]),
        frame=frame_from_json(value.get("frame", "percent")),
        dialect=dialect,
        labels=tuple(labels),
    )
    return example, value["response"]


def _boxes_from_json(task: str, value: Any) -> tuple[Box, ...]:
    if not isinstance(value, list):
        raise DataError(f"target of {task}: expected a list of boxes, found {short_repr(value)}")
    return tuple(_box_from_json(task, item) for item in value)


def _box_from_json(task: str, item: Any) -> Box:
    coords, label = (item.get("box"), item.get("label")) if isinstance(item, Mapping) else (item, None)
    if not isinstance(coords, list) or len(coords) not in (4, 5) or not all(map(is_coordinate, coords)):
        raise DataError(
            f'target of {task}: expected boxes [x1, y1, x2, y2] or [x1, y1, x2, y2, angle], alone or as {{"box", '
            f'"label"}}, found {short_repr(item)}'
        )
    if isinstance(item, Mapping) and (unknown := next((key for key in item if key not in BOX_KEYS), None)) is not None:
        raise DataError(
            f"target of {task}: expected boxes with the keys {' and '.join(BOX_KEYS)}, found {unknown!r}"
            f"{did_you_mean(str(unknown), BOX_KEYS)}"
        )
    return Box(tuple(map(float, coords)), label if label is None else str(label))
