"""Notation and unit of the boxes in prompts and answers, and conversion of examples to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from geovlm_ray.core.geometry import Frame, convert_coords
from geovlm_ray.core.schema import Box, Example, GroundedText, Target
from geovlm_ray.data.resolution import Resolution, frames_of
from geovlm_ray.tasks.answers.box_dialects import replace_boxes

Convert = Callable[[tuple[float, ...]], tuple[float, ...]]


@dataclass(frozen=True)
class AnswerFormat:
    """How boxes are written: ``frame`` and ``dialect``, None for those of the dataset.

    With ``shown``, boxes are in pixels of the example's last image at this resolution, and ``frame`` is not used.
    """

    frame: Frame | None = None
    dialect: str | None = None
    shown: Resolution | None = None

    def of(self, example: Example) -> Example:
        """The example with its boxes in this format.

        Raises:
            DataError: The header of its last image, whose size is needed, cannot be read.
        """
        frame = self.frame
        if self.shown is not None:
            full = frames_of(example.images[-1], self.shown)[0] if example.images else None
            frame = full or example.frame
        converted = example if frame is None else in_frame(example, frame)
        return replace(converted, dialect=self.dialect or example.dialect)


DATASET_FORMAT = AnswerFormat()
"""Boxes as the dataset has them."""


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
