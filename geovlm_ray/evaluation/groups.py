"""Category of a record in its dataset: the question type, or the object size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geovlm_ray.core.schema import Example, target_boxes
from geovlm_ray.evaluation.metrics.detection import size_group
from geovlm_ray.tasks import TASKS


def record_group(example: Example, extra: Mapping[str, Any]) -> str | None:
    """The category of a record, or None.

    Args:
        extra: source fields that `Example` lacks: RSVQA's ``type``, and GeoChat's ``size_group``, which EarthDial's
            shards wrap in double quotes. Without ``size_group``, the size is computed from the true boxes.
    """
    kind = TASKS[example.task].target_kind
    given = extra.get("type" if kind == "vqa" else "size_group")
    name = given.strip('"') if isinstance(given, str) else ""
    if name:
        return name
    return size_group(target_boxes(example.target), example.frame) if kind == "boxes" else None
