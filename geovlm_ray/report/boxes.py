"""Boxes drawn on images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from geovlm_ray.geometry import Frame, rotated_corners
from geovlm_ray.schema import Box

TRUE_COLOUR = "#22c55e"
PREDICTED_COLOUR = "#f97316"


def draw_boxes(image: Image.Image, boxes: Sequence[Box], frame: Frame, colour: str) -> Image.Image:
    """The image with outlines of boxes, whose coordinates are in ``frame``; rotated ones as such."""

    canvas = image.copy()
    draw = ImageDraw.Draw(canvas)
    pixels = Frame("pixel", image.width, image.height)
    width = max(1, round(max(image.size) / 160))
    for box in boxes:
        coords = frame.convert(box.coords, pixels)
        row = np.array([(*coords, 0.0)[:5]])
        corners = [(float(x), float(y)) for x, y in rotated_corners(row)[0]]
        draw.line([*corners, corners[0], corners[1]], fill=colour, width=width, joint="curve")
        if box.label:
            draw.text((corners[0][0] + width, corners[0][1] + width), box.label, fill=colour)
    return canvas
