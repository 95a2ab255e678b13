"""What a dataset files a record under: the type of its question, or the size of its objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geovlm_ray.core.schema import Example
from geovlm_ray.evaluation.metrics.detection import size_group
from geovlm_ray.evaluation.metrics.sound import true_boxes
from geovlm_ray.tasks import TASKS


def record_group(example: Example, extra: Mapping[str, Any]) -> str | None:
    """The group of a record, None where there is none.

    Args:
        extra: fields of the source that the example does not hold: RSVQA's ``type``, GeoChat's ``size_group``, which
            EarthDial's shards keep in double quotes; where the latter is absent the boxes tell.
    """
    kind = TASKS[example.task].target_kind
    given = extra.get("type" if kind == "vqa" else "size_group")
    name = given.strip('"') if isinstance(given, str) else ""
    if name:
        return name
    return size_group(true_boxes(example), example.frame) if kind == "boxes" else None
