"""Contact sheet of synthetic scenes: one row per task, with question, ideal answer and true boxes."""

from __future__ import annotations

import textwrap

from PIL import Image, ImageDraw, ImageFont

from geovlm_ray.core.schema import target_boxes
from geovlm_ray.data.scenes import SCENE_TASKS, demonstration, render_scene, scene_example
from geovlm_ray.report.boxes import TRUE_COLOUR, draw_boxes
from geovlm_ray.tasks.answers.grammar import parse_response

IMAGE_SIDE, HEADING_HEIGHT, CAPTION_HEIGHT, GAP = 168, 34, 68, 12
WIDTH = 2 * IMAGE_SIDE + GAP
HEIGHT = HEADING_HEIGHT + IMAGE_SIDE + CAPTION_HEIGHT
HEADING_COLOUR, QUESTION_COLOUR = "#0f172a", "#475569"


def contact_sheet(seed: int, each: int) -> Image.Image:
    """``each`` scenes of every task below its name; only the first and last image of sequences with three or more."""
    sheet = Image.new("RGB", (GAP + each * (WIDTH + GAP), len(SCENE_TASKS) * HEIGHT), "white")
    font = ImageFont.load_default(18)
    for row, task in enumerate(SCENE_TASKS):
        top = row * HEIGHT
        ImageDraw.Draw(sheet).text((GAP, top + 8), task.replace("_", " "), fill=HEADING_COLOUR, font=font)
        for column in range(each):
            sheet.paste(_cell(task, seed, column), (GAP + column * (WIDTH + GAP), top + HEADING_HEIGHT))
    return sheet


def _cell(task: str, seed: int, index: int) -> Image.Image:
    example = scene_example(task, seed, index)
    boxes = target_boxes(example.target)
    cell = Image.new("RGB", (WIDTH, IMAGE_SIDE + CAPTION_HEIGHT), "white")
    shown = example.images if len(example.images) < 3 else (example.images[0], example.images[-1])
    for k, reference in enumerate(shown):
        image = render_scene(reference).resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC)
        tile = draw_boxes(image, boxes, example.frame, TRUE_COLOUR) if k == len(shown) - 1 else image
        cell.paste(tile, (k * (IMAGE_SIDE + GAP), 0))
    parsed = parse_response(demonstration(example))
    draw, font, y = ImageDraw.Draw(cell), ImageFont.load_default(12), IMAGE_SIDE + 4.0
    for text, colour in ((example.question, QUESTION_COLOUR), (parsed.answer if parsed else "", HEADING_COLOUR)):
        lines = textwrap.fill(text, 58)
        draw.multiline_text((0, y), lines, fill=colour, font=font, spacing=2)
        y = draw.multiline_textbbox((0, y), lines, font=font, spacing=2)[3] + 3
    return cell
