"""Model answers as pages show them: images with boxes, and the reference as text.

A row is a rollout or prediction row with the columns of `geovlm_ray.data.sample_rows`.
"""

from __future__ import annotations

import string
import textwrap
from dataclasses import dataclass

from PIL import Image

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Box, Example, GroundedText, target_boxes
from geovlm_ray.data.images import load_image
from geovlm_ray.data.sample_rows import SampleRow, row_example
from geovlm_ray.report.boxes import PREDICTED_COLOUR, TRUE_COLOUR, draw_boxes
from geovlm_ray.report.page import data_uri, fitted
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.box_labels import box_classes
from geovlm_ray.tasks.answers.box_reader import read_boxes
from geovlm_ray.tasks.answers.grammar import parse_response

IMAGE_SIDE = 320
"""Pixels of the longer side of a shown image."""
TRUE_LETTERS, PREDICTED_LETTERS = string.ascii_uppercase, string.ascii_lowercase
"""Marks of several boxes on one image, in the order of the reference and of the answer."""
MAX_ALT_CHARS = 160


@dataclass(frozen=True)
class Picture:
    """An image, its text alternative, and a caption."""

    image: Image.Image
    alt: str
    caption: str = ""

    @property
    def uri(self) -> str:
        """The image as a data URI."""
        return data_uri(self.image)


def shown_answer(row: SampleRow) -> SampleRow:
    """The row with its ``reference`` as text, its ``pictures``, and why it has none (``missing``)."""
    shown, missing = pictures_or_reason(row)
    return {**row, "reference": reference_text(row), "pictures": shown, "missing": missing}


def pictures_or_reason(*rows: SampleRow) -> tuple[list[Picture], str]:
    """`pictures` of the rows, or why there are none: the machine that writes a page often lacks the images."""
    try:
        return pictures(*rows), ""
    except DataError as error:
        return [], str(error)


def pictures(*rows: SampleRow) -> list[Picture]:
    """All images of a prompt with one or more completions.

    The last image, the most recent one, has the true boxes. In tasks with boxes it is repeated for each row, with the
    predicted boxes of its completion, and a caption from ``row["caption"]`` if that exists.

    Raises:
        DataError: an image does not exist.
    """
    example = row_example(rows[0])
    images = [fitted(load_image(reference, example.pixels), IMAGE_SIDE) for reference in example.images]
    question = textwrap.shorten(example.question, MAX_ALT_CHARS, placeholder=" ...")
    names = [f"image {k} of {len(images)}" if len(images) > 1 else "" for k in range(1, len(images) + 1)]
    shown = [Picture(i, f"{n or 'image'}: {question}", n) for i, n in zip(images, names, strict=True)]
    if not _has_boxes(example.task):
        return shown
    true = target_boxes(example.target)
    image = draw_boxes(images[-1], true, example.frame, TRUE_COLOUR, letters=TRUE_LETTERS)
    del shown[-1]
    for row in rows:
        predicted, caption = predicted_boxes(row), row.get("caption", names[-1])
        drawn = draw_boxes(image, predicted, example.frame, PREDICTED_COLOUR, dashed=True, letters=PREDICTED_LETTERS)
        counts = f"true boxes (blue, solid): {len(true)}; predicted boxes (orange, dashed): {len(predicted)}"
        shown.append(Picture(drawn, f"{caption or 'image'}: {question} {counts}", caption))
    return shown


def predicted_boxes(row: SampleRow) -> list[Box]:
    """The boxes of an answer; empty if the answer or the task has none."""
    return response_boxes(row["completion"], row_example(row))


def response_boxes(response: str, example: Example) -> list[Box]:
    """The boxes of a response as the rewards read them; empty if the response or the task has none."""
    if not _has_boxes(example.task):
        return []
    parsed = parse_response(response) or parse_response(response, "none")
    if parsed is None:
        return []
    read = read_boxes(parsed.answer, example.dialect, box_classes(example), example.frame, example.question)
    if read is None:
        return []
    return [Box(c, label) for c, label in zip(read.boxes, read.labels, strict=True) if len(c) in (4, 5)]


def reference_text(row: SampleRow) -> str:
    """The target of a row as text; several boxes have the letters of the image."""
    target = row_example(row).target
    if isinstance(target, str):
        return target
    true = target_boxes(target)
    letters = TRUE_LETTERS[: len(true)] if len(true) > 1 else ""
    marks = [f"{letter} " for letter in letters] + [""] * (len(true) - len(letters))
    boxes = ", ".join(mark + _box_text(box) for mark, box in zip(marks, true, strict=True))
    return f"{target.text} {boxes}" if isinstance(target, GroundedText) else boxes or " | ".join(map(str, target))


def _box_text(box: Box) -> str:
    return (f"{box.label} " if box.label else "") + f"[{', '.join(f'{c:g}' for c in box.coords)}]"


def _has_boxes(task: str) -> bool:
    return TASKS[task].target_kind in ("boxes", "grounded")
