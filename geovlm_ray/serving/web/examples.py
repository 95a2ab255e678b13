"""Examples on the page: drawn scenes with a question each."""

from __future__ import annotations

import io

from geovlm_ray.core.schema import Example
from geovlm_ray.data.scenes import render_scene, scene_example

TASKS = ("object_detection", "visual_grounding", "vqa", "change_captioning")
SEED = 1_000_000_007
"""Not used in training."""


def page_examples() -> list[Example]:
    """The examples, one for each of `TASKS`."""
    return [scene_example(task, SEED, 0) for task in TASKS]


def picture(example: Example, number: int) -> bytes:
    """An image of an example as PNG."""
    content = io.BytesIO()
    render_scene(example.images[number]).save(content, "PNG")
    return content.getvalue()
