"""Contact sheet of synthetic scenes: one row per task, with question, ideal answer and true boxes."""

from __future__ import annotations

import textwrap

from PIL import Image, ImageDraw

from geovlm_ray.core.schema import target_boxes
from geovlm_ray.data.scenes import SCENE_TASKS, demonstration, render_scene, scene_example
from geovlm_ray.report.boxes import TRUE_COLOUR, draw_boxes
from geovlm_ray.tasks.answers.grammar import parse_response

IMAGE_SIDE, CAPTION_HEIGHT, GAP = 168, 62, 8
WIDTH = 2 * IMAGE_SIDE + GAP


def contact_sheet(seed: int, each: int) -> Image.Image:
    """``each`` scenes of every task; only the first and last image of sequences with three or more."""
    sheet = Image.new("RGB", (each * (WIDTH + GAP), len(SCENE_TASKS) * (IMAGE_SIDE + CAPTION_HEIGHT + GAP)), "white")
    for row, task in enumerate(SCENE_TASKS):
        for column in range(each):
            sheet.paste(_cell(task, seed, column), (column * (WIDTH + GAP), row * (IMAGE_SIDE + CAPTION_HEIGHT + GAP)))
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
    text = f"{task}: {example.question} > {parsed.answer if parsed else ''}"
    ImageDraw.Draw(cell).multiline_text((0, IMAGE_SIDE + 4), textwrap.fill(text, 56), fill="black", spacing=2)
    return cell
