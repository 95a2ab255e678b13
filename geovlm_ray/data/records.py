"""Parsing of targets, frames and scoring records from JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.pixels import PixelSettings
from geovlm_ray.core.schema import Box, Example, GroundedText, Target
from geovlm_ray.tasks import find_task
from geovlm_ray.tasks.boxes import DIALECTS, MAX_COORDINATE


def target_from_json(task: str, value: Any) -> Target:
    """Parse the target of a task.

    Raises:
        DataError: There is no such task, or the value does not have the form of its targets.
    """
    kind = find_task(task).target_kind
    if kind == "vqa":
        if not isinstance(value, str):
            raise DataError(f"target of {task}: expected a string, found {_shown(value)}")
        return value
    if kind in ("classes", "captions"):
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not values or not all(isinstance(v, str) for v in values):
            raise DataError(f"target of {task}: expected a list of strings, found {_shown(value)}")
        return tuple(values)
    if kind == "boxes":
        return _boxes_from_json(task, value)
    if not isinstance(value, Mapping) or not isinstance(value.get("text"), str) or "boxes" not in value:
        raise DataError(f'target of {task}: expected {{"text": ..., "boxes": [...]}}, found {_shown(value)}')
    return GroundedText(value["text"], _boxes_from_json(task, value["boxes"]))


def frame_from_json(value: Any) -> Frame:
    """Parse a frame; the inverse of `geovlm_ray.tasks.targets.plain_frame`.

    Raises:
        DataError: The value is neither percent, permille nor a pixel frame.
    """
    if value in ("percent", "permille"):
        return Frame(value)
    size = value.get("pixel") if isinstance(value, Mapping) else None
    if isinstance(size, list) and len(size) == 2 and all(_is_number(v) and v > 0 for v in size):
        return Frame("pixel", float(size[0]), float(size[1]))
    raise DataError(f'frame: expected "percent", "permille" or {{"pixel": [width, height]}}, found {_shown(value)}')


def pixels_from_json(value: Mapping[str, Any]) -> PixelSettings:
    """Pixel settings from their fields, as stored in JSON and Parquet."""
    value_range = value["value_range"]
    return PixelSettings(
        bands=tuple(value["bands"]),
        percentiles=(value["percentiles"][0], value["percentiles"][1]),
        value_range=None if value_range is None else (value_range[0], value_range[1]),
        nodata=value["nodata"],
    )


def scoring_record(value: Any) -> tuple[Example, str]:
    """Parse a record ``{"id", "task", "response", "target", ...}`` into an example and a response.

    Optional keys: ``frame``, ``dialect``, ``labels`` and ``question``.

    Raises:
        DataError: A key is absent or has an invalid value.
    """
    if not isinstance(value, Mapping):
        raise DataError(f"expected an object, found {_shown(value)}")
    for key in ("id", "task", "response", "target"):
        if key not in value:
            raise DataError(f"expected the key {key!r}, found only {', '.join(map(repr, value))}")
    if not isinstance(value["task"], str):
        raise DataError(f"task: expected a string, found {_shown(value['task'])}")
    if not isinstance(value["response"], str):
        raise DataError(f"response: expected a string, found {_shown(value['response'])}")
    dialect = value.get("dialect", "brackets")
    if not isinstance(dialect, str) or dialect not in DIALECTS:
        raise DataError(f"dialect: expected one of {', '.join(DIALECTS)}, found {_shown(dialect)}")
    labels = value.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
        raise DataError(f"labels: expected a list of strings, found {_shown(labels)}")
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
        raise DataError(f"target of {task}: expected a list of boxes, found {_shown(value)}")
    return tuple(_box_from_json(task, item) for item in value)


def _box_from_json(task: str, item: Any) -> Box:
    coords, label = (item.get("box"), item.get("label")) if isinstance(item, Mapping) else (item, None)
    if not isinstance(coords, list) or len(coords) not in (4, 5) or not all(map(_is_number, coords)):
        raise DataError(
            f'target of {task}: expected boxes [x1, y1, x2, y2] or [x1, y1, x2, y2, angle], alone or as {{"box", '
            f'"label"}}, found {_shown(item)}'
        )
    return Box(tuple(map(float, coords)), label if label is None else str(label))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_COORDINATE


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
