"""Boxes: coordinate frames, horizontal and rotated intersection over union, one-to-one matching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FrameKind = Literal["percent", "permille", "pixel"]


@dataclass(frozen=True)
class Frame:
    """The coordinate system in which a dataset writes its boxes.

    ``percent`` counts 0..100 and ``permille`` 0..1000 of the image's width and height; ``pixel`` counts
    pixels of an image of ``width`` x ``height``. Prompt, reward, evaluation and pictures all convert
    through this one class.
    """

    kind: FrameKind = "percent"
    width: float = 0.0
    height: float = 0.0

    def __post_init__(self) -> None:
        if self.kind == "pixel" and not (self.width > 0 and self.height > 0):
            raise ValueError(f"a pixel frame needs a positive width and height, found {self.width} x {self.height}")

    @property
    def scale(self) -> tuple[float, float]:
        """Width and height of the whole image in this frame's units."""
        if self.kind == "pixel":
            return self.width, self.height
        side = 100.0 if self.kind == "percent" else 1000.0
        return side, side
