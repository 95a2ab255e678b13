"""Examples in the frame in which the model shall answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from geovlm_ray.core.geometry import Frame, convert_coords
from geovlm_ray.core.schema import Box, Example, GroundedText, Target
from geovlm_ray.tasks.boxes import replace_boxes

Convert = Callable[[tuple[float, ...]], tuple[float, ...]]


def in_frame(example: Example, frame: Frame) -> Example:
    """The example with the boxes of its target and of its texts converted; those in texts become whole numbers."""
    if example.frame.scale == frame.scale:
        return replace(example, frame=frame)

    def convert(coords: tuple[float, ...]) -> tuple[float, ...]:
        return convert_coords(coords, example.frame, frame)

    return replace(
        example,
        frame=frame,
        target=_converted(example.target, convert),
        question=_text(example.question, convert),
    )


def _text(text: str, convert: Convert) -> str:
    return replace_boxes(text, lambda coords: tuple(map(round, convert(coords))))


def _converted(target: Target, convert: Convert) -> Target:
    if isinstance(target, str):
        return target
    if isinstance(target, GroundedText):
        boxes = tuple(Box(convert(b.coords), b.label) for b in target.boxes)
        return GroundedText(_text(target.text, convert), boxes)
    boxes = tuple(Box(convert(item.coords), item.label) for item in target if isinstance(item, Box))
    return boxes or target
