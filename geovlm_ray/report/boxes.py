"""Drawing of bounding boxes on images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from geovlm_ray.core.geometry import Frame, rotated_corners
from geovlm_ray.core.schema import Box

TRUE_COLOUR = "#22c55e"
PREDICTED_COLOUR = "#f97316"
MAX_LABEL_CHARS = 40
Rectangle = tuple[float, float, float, float]


def draw_boxes(image: Image.Image, boxes: Sequence[Box], frame: Frame, colour: str) -> Image.Image:
    """A copy of the image with outlines of horizontal and rotated boxes, whose coordinates are in ``frame``.

    Labels are written above the boxes if there is room; a label that all boxes share is written once.
    """
    canvas = image.copy()
    draw = ImageDraw.Draw(canvas)
    pixels = Frame("pixel", image.width, image.height)
    width = max(1, round(max(image.size) / 160))
    rows = np.array([(*frame.convert(box.coords, pixels), 0.0)[:5] for box in boxes]).reshape(-1, 5)
    corners = rotated_corners(rows)
    for outline in ([(float(x), float(y)) for x, y in four] for four in corners):
        draw.line([*outline, outline[0], outline[1]], fill=colour, width=width, joint="curve")
    is_same_label = len({box.label for box in boxes}) == 1
    written: list[Rectangle] = []
    for box, (x, y) in zip(boxes[:1] if is_same_label else boxes, corners.min(axis=1), strict=False):
        if box.label:
            _write_label(draw, box.label, (float(x), float(y)), image.size, colour, written)
    return canvas


def _write_label(
    draw: ImageDraw.ImageDraw,
    label: str,
    corner: tuple[float, float],
    size: tuple[int, int],
    colour: str,
    written: list[Rectangle],
) -> None:
    """Write a label on a coloured patch above the upper left corner of a box, moved to fit into the image.

    A label that would overlap one in ``written`` is omitted; a written one is appended to it.
    """
    font = ImageFont.load_default(max(10, max(size) / 40))
    text = " ".join(label[:MAX_LABEL_CHARS].split())
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    label_width, label_height = right - left + 4, bottom - top + 4
    x = min(max(corner[0], 0.0), max(size[0] - label_width, 0.0))
    y = min(max(corner[1] - label_height, 0.0), max(size[1] - label_height, 0.0))
    if any(x < x2 and x1 < x + label_width and y < y2 and y1 < y + label_height for x1, y1, x2, y2 in written):
        return
    written.append((x, y, x + label_width, y + label_height))
    draw.rectangle(written[-1], fill=colour)
    draw.text((x + 2 - left, y + 2 - top), text, fill="white", font=font)
