"""Drawing of bounding boxes on images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from geovlm_ray.core.geometry import Frame, rotated_corners
from geovlm_ray.core.schema import Box
from geovlm_ray.core.terminal import inert

TRUE_COLOUR = "#2563eb"
PREDICTED_COLOUR = "#f97316"
"""Blue and orange differ in hue and in lightness with every type of colour blindness."""
CASING_COLOUR = "white"
MAX_LABEL_CHARS = 40
Point = tuple[float, float]
Rectangle = tuple[float, float, float, float]


def draw_boxes(
    image: Image.Image, boxes: Sequence[Box], frame: Frame, colour: str, *, dashed: bool = False, letters: str = ""
) -> Image.Image:
    """A copy of the image with outlines of horizontal and rotated boxes, whose coordinates are in ``frame``.

    Labels are written at a corner of the boxes where there is room: first above the upper left one (``dashed``: below
    the lower right one); a label that all boxes share is written once. With ``letters``, several boxes are marked with
    one letter each instead, in order; boxes after the last letter have none.
    """
    canvas = image.copy()
    draw = ImageDraw.Draw(canvas)
    pixels = Frame("pixel", image.width, image.height)
    width = max(1, round(max(image.size) / 120))
    rows = np.array([(*frame.convert(box.coords, pixels), 0.0)[:5] for box in boxes]).reshape(-1, 5)
    corners = rotated_corners(rows)
    outlines = [[(float(x), float(y)) for x, y in (*four, four[0], four[1])] for four in corners]
    strokes = [stroke for line in outlines for stroke in (_dashes(line[:5], 4 * width) if dashed else [line])]
    for stroke in strokes:
        draw.line(stroke, fill=CASING_COLOUR, width=width + 2, joint="curve")
    for stroke in strokes:
        draw.line(stroke, fill=colour, width=width, joint="curve")
    written: list[Rectangle] = []
    for label, four in zip(_labels(boxes, letters), corners, strict=False):
        if label:
            (left, top), (right, bottom) = four.min(axis=0).tolist(), four.max(axis=0).tolist()
            _write_label(draw, label, (left, top, right, bottom), dashed, colour, written)
    return canvas


def _labels(boxes: Sequence[Box], letters: str) -> Sequence[str | None]:
    if letters and len(boxes) > 1:
        return letters[: len(boxes)]
    is_same = len({box.label for box in boxes}) == 1
    return [box.label for box in (boxes[:1] if is_same else boxes)]


def _dashes(outline: Sequence[Point], length: float) -> Iterator[list[Point]]:
    """Dashes and gaps of about ``length`` pixels along each side; each side begins and ends with a dash."""
    for (x1, y1), (x2, y2) in pairwise(outline):
        n = max(2, round((math.hypot(x2 - x1, y2 - y1) / length + 1) / 2))
        for k in range(n):
            ends = (2 * k / (2 * n - 1), (2 * k + 1) / (2 * n - 1))
            yield [(x1 + t * (x2 - x1), y1 + t * (y2 - y1)) for t in ends]


def _write_label(
    draw: ImageDraw.ImageDraw, label: str, box: Rectangle, below: bool, colour: str, written: list[Rectangle]
) -> None:
    """Write a label on a coloured patch at the first corner of a box where it overlaps none in ``written``.

    It is moved to fit into the image, and appended to ``written``; without such a corner it is omitted. Labels go above
    the box, or ``below`` it, if they can.
    """
    width, height = draw.im.size
    font = ImageFont.load_default(max(14, max(width, height) / 40))
    text = inert(" ".join(label[:MAX_LABEL_CHARS].split()))
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    label_width, label_height = right - left + 4, bottom - top + 4
    above = [(box[0], box[1] - label_height), (box[2] - label_width, box[1] - label_height)]
    under = [(box[2] - label_width, box[3]), (box[0], box[3])]
    for corner in under + above if below else above + under:
        x = min(max(corner[0], 0.0), max(width - label_width, 0.0))
        y = min(max(corner[1], 0.0), max(height - label_height, 0.0))
        if not any(x < x2 and x1 < x + label_width and y < y2 and y1 < y + label_height for x1, y1, x2, y2 in written):
            break
    else:
        return
    written.append((x, y, x + label_width, y + label_height))
    draw.rectangle(written[-1], fill=colour)
    draw.text((x + 2 - left, y + 2 - top), text, fill=_ink(colour), font=font)


def _ink(colour: str) -> str:
    """Black or white, whichever contrasts with a background colour (ITU-R BT.601 luma)."""
    red, green, blue = ImageColor.getrgb(colour)[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else "white"
