"""Boxes drawn on images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from geovlm_ray.geometry import Frame, rotated_corners
from geovlm_ray.schema import Box

TRUE_COLOUR = "#22c55e"
PREDICTED_COLOUR = "#f97316"
LONGEST_LABEL = 40


def draw_boxes(image: Image.Image, boxes: Sequence[Box], frame: Frame, colour: str) -> Image.Image:
    """The image with outlines of boxes, whose coordinates are in ``frame``; rotated ones as such, labels above all."""
    canvas = image.copy()
    draw = ImageDraw.Draw(canvas)
    pixels = Frame("pixel", image.width, image.height)
    width = max(1, round(max(image.size) / 160))
    rows = np.array([(*frame.convert(box.coords, pixels), 0.0)[:5] for box in boxes]).reshape(-1, 5)
    for corners in rotated_corners(rows):
        outline = [(float(x), float(y)) for x, y in corners]
        draw.line([*outline, outline[0], outline[1]], fill=colour, width=width, joint="curve")
    for box, corners in zip(boxes, rotated_corners(rows), strict=True):
        if box.label:
            _write_label(draw, box.label, corners.min(axis=0), image.size, colour)
    return canvas


def _write_label(draw: ImageDraw.ImageDraw, label: str, corner: np.ndarray, size: tuple[int, int], colour: str) -> None:
    """A label on a patch of colour above the upper left corner of a box, moved to where it is inside the image."""
    font = ImageFont.load_default(max(10, max(size) / 40))
    text = " ".join(label[:LONGEST_LABEL].split())
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    x = min(max(float(corner[0]), 0.0), max(size[0] - (right - left) - 4, 0.0))
    y = min(max(float(corner[1]) - (bottom - top) - 4, 0.0), max(size[1] - (bottom - top) - 4, 0.0))
    draw.rectangle((x, y, x + right - left + 4, y + bottom - top + 4), fill=colour)
    draw.text((x + 2 - left, y + 2 - top), text, fill="white", font=font)
