"""Targets and frames as JSON-serializable values, in the format of a record."""

from __future__ import annotations

from typing import Any

from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, GroundedText, Target


def plain_target(target: Target) -> Any:
    """A string, a list of strings or boxes, or ``{"text", "boxes"}``; a labelled box is ``{"box", "label"}``."""
    if isinstance(target, GroundedText):
        return {"text": target.text, "boxes": [_plain_box(b) for b in target.boxes]}
    if isinstance(target, str):
        return target
    return [_plain_box(item) if isinstance(item, Box) else item for item in target]


def plain_frame(frame: Frame) -> Any:
    """``percent``, ``permille`` or ``{"pixel": [width, height]}``."""
    return {"pixel": [frame.width, frame.height]} if frame.kind == "pixel" else frame.kind


def _plain_box(box: Box) -> Any:
    return list(box.coords) if box.label is None else {"box": list(box.coords), "label": box.label}
