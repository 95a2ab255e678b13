"""Conversion of examples to the frame of the model's answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from geovlm_ray.core.geometry import Frame, convert_coords
from geovlm_ray.core.schema import Box, Example, GroundedText, Target
from geovlm_ray.tasks.boxes import replace_boxes

Convert = Callable[[tuple[float, ...]], tuple[float, ...]]


def in_frame(example: Example, frame: Frame) -> Example:
    """Convert the boxes of an example's target and texts to ``frame``; boxes in texts are rounded to integers."""
    if example.frame.scale == frame.scale:
        return replace(example, frame=frame)

    def convert(coords: tuple[float, ...]) -> tuple[float, ...]:
        return convert_coords(coords, example.frame, frame)

    return replace(
        example,
        frame=frame,
        target=_convert_target(example.target, convert),
        question=_convert_text(example.question, convert),
    )


def _convert_text(text: str, convert: Convert) -> str:
    return replace_boxes(text, lambda coords: tuple(map(round, convert(coords))))


def _convert_target(target: Target, convert: Convert) -> Target:
    if isinstance(target, str):
        return target
    if isinstance(target, GroundedText):
        boxes = tuple(Box(convert(b.coords), b.label) for b in target.boxes)
        return GroundedText(_convert_text(target.text, convert), boxes)
    boxes = tuple(Box(convert(item.coords), item.label) for item in target if isinstance(item, Box))
    return boxes or target
