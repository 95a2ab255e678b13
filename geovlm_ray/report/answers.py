"""Records and model answers as images with boxes and as text.

A row is a rollout or prediction row with ``task``, ``images``, ``pixels``, ``target``, ``frame``, ``dialect`` and
``completion``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from geovlm_ray.core.schema import Box, GroundedText, Target, target_boxes
from geovlm_ray.data.images import load_image
from geovlm_ray.data.records import frame_from_json, pixels_from_json, target_from_json
from geovlm_ray.report.boxes import PREDICTED_COLOUR, TRUE_COLOUR, draw_boxes
from geovlm_ray.report.page import data_uri, fitted
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.boxes import parse_boxes
from geovlm_ray.tasks.grammar import parse_response

IMAGE_SIDE = 320
"""Pixels of the longer side of a shown image."""
SampleRow = Mapping[str, Any]


def images_html(row: SampleRow) -> str:
    """All images of the prompt as HTML; true and predicted boxes are drawn on the last, most recent one.

    Raises:
        DataError: an image does not exist.
    """
    pixels, frame = pixels_from_json(json.loads(row["pixels"])), frame_from_json(json.loads(row["frame"]))
    images = [fitted(load_image(reference, pixels), IMAGE_SIDE) for reference in row["images"]]
    images[-1] = draw_boxes(images[-1], target_boxes(row_target(row)), frame, TRUE_COLOUR)
    images[-1] = draw_boxes(images[-1], predicted_boxes(row), frame, PREDICTED_COLOUR)
    return "".join(f'<img alt="" src="{data_uri(image)}">' for image in images)


def predicted_boxes(row: SampleRow) -> list[Box]:
    """The boxes of an answer; empty if the answer or the task has none."""
    if TASKS[row["task"]].target_kind not in ("boxes", "grounded"):
        return []
    parsed = parse_response(row["completion"]) or parse_response(row["completion"], "none")
    answer_boxes = parse_boxes(parsed.answer, row["dialect"]) if parsed else None
    if answer_boxes is None:
        return []
    return [Box(c, label) for c, label in zip(answer_boxes.boxes, answer_boxes.labels, strict=True) if len(c) in (4, 5)]


def row_target(row: SampleRow) -> Target:
    """The target of a row."""
    return target_from_json(row["task"], json.loads(row["target"]))


def reference_text(target: Target) -> str:
    """A target as text."""
    if isinstance(target, GroundedText):
        return f"{target.text} {_boxes_text(target.boxes)}"
    if isinstance(target, str):
        return target
    boxes = target_boxes(target)
    return _boxes_text(boxes) if boxes else " | ".join(map(str, target))


def _boxes_text(boxes: Sequence[Box]) -> str:
    return ", ".join("[" + ", ".join(f"{c:g}" for c in b.coords) + "]" for b in boxes)
