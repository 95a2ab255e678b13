"""Model answers as pages show them: images with boxes, and the reference as text.

A row is a rollout or prediction row with the columns of `geovlm_ray.data.sample_rows`.
"""

from __future__ import annotations

from geovlm_ray.core.schema import Box, GroundedText, Target, target_boxes
from geovlm_ray.data.images import load_image
from geovlm_ray.data.sample_rows import SampleRow, row_example
from geovlm_ray.report.boxes import PREDICTED_COLOUR, TRUE_COLOUR, draw_boxes
from geovlm_ray.report.page import data_uri, fitted
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.boxes import parse_boxes
from geovlm_ray.tasks.grammar import parse_response

IMAGE_SIDE = 320
"""Pixels of the longer side of a shown image."""


def shown_answer(row: SampleRow) -> SampleRow:
    """The row with its ``reference`` as text and its `pictures`."""
    return {**row, "reference": reference_text(row), "pictures": pictures(row)}


def pictures(row: SampleRow) -> list[str]:
    """All images of the prompt as data URIs, with true and predicted boxes on the last, most recent one.

    Raises DataError if an image does not exist.
    """
    example = row_example(row)
    images = [fitted(load_image(reference, example.pixels), IMAGE_SIDE) for reference in example.images]
    images[-1] = draw_boxes(images[-1], target_boxes(example.target), example.frame, TRUE_COLOUR)
    images[-1] = draw_boxes(images[-1], predicted_boxes(row), example.frame, PREDICTED_COLOUR)
    return [data_uri(image) for image in images]


def predicted_boxes(row: SampleRow) -> list[Box]:
    """The boxes of an answer; empty if the answer or the task has none."""
    if TASKS[row["task"]].target_kind not in ("boxes", "grounded"):
        return []
    parsed = parse_response(row["completion"]) or parse_response(row["completion"], "none")
    answer_boxes = parse_boxes(parsed.answer, row["dialect"]) if parsed else None
    if answer_boxes is None:
        return []
    return [Box(c, label) for c, label in zip(answer_boxes.boxes, answer_boxes.labels, strict=True) if len(c) in (4, 5)]


def reference_text(row: SampleRow) -> str:
    """The target of a row as text."""
    target: Target = row_example(row).target
    if isinstance(target, str):
        return target
    boxes = ", ".join("[" + ", ".join(f"{c:g}" for c in b.coords) + "]" for b in target_boxes(target))
    return f"{target.text} {boxes}" if isinstance(target, GroundedText) else boxes or " | ".join(map(str, target))
