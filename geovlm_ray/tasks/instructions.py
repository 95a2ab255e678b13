"""Instructions that follow a question: form of the answer, notation and unit of boxes, names of the classes.

An instruction never contradicts the question: where a question states the form of its answer itself, as in "answer with
one word" or "describe the image in detail", the instruction does not. It must not tell whether there are objects or
whether their boxes are turned: records without objects have ``labels`` and ``rotated`` as those with objects would.
"""

from __future__ import annotations

from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Example, is_rotated
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.box_labels import needs_labels, writes_labels
from geovlm_ray.tasks.answers.box_reader import without_boxes
from geovlm_ray.tasks.stated_form import states_form, without_box_form

BOXES = "{boxes}"
"""Placeholder of a task's instruction for the notation and the unit of boxes."""

_CORNERS = "x1, y1, x2, y2"
_ROTATED = "x1, y1, x2, y2, angle"
_NOTATIONS = {
    "brackets": ("[[{box}]]", "name [{box}]"),
    "json": ('[{{"bbox_2d": [{box}]}}]', '[{{"bbox_2d": [{box}], "label": "name"}}]'),
    "geochat": ("{{<x1><y1><x2><y2>}}", "<p>name</p>{{<x1><y1><x2><y2>}}"),
    "tagged": ("<box>[[{box}]]</box>", "<ref>name</ref><box>[[{box}]]</box>"),
    "polygons": ("[[x1, y1], [x2, y2], [x3, y3], ...]", "[[x1, y1], [x2, y2], [x3, y3], ...]"),
}
"""A box in each dialect, without and with the name of its class."""
_GEOCHAT_ROTATED = "{{<x1><y1><x2><y2>|<angle>}}"


def question_and_instruction(example: Example, *, list_classes: int = 0, caption_words: int | None = None) -> str:
    """The question and, on a new line, the instruction of its task, if there is something to say.

    The names of an example's ``labels`` are listed if the answer names some of them, there are at most
    ``list_classes``, and the question does not list them. ``caption_words`` is the length that captions should have; by
    default that of the task's instruction. What a question says of the notation of boxes gives way to the instruction.
    """
    kind = TASKS[example.task].target_kind
    question = example.question
    if kind in ("boxes", "grounded"):
        question = without_box_form(question)
    parts = [question, " ".join(_sentences(example, question, list_classes, caption_words))]
    return "\n".join(part for part in parts if part)


def box_format(dialect: str, unit: str, *, named: bool = False, rotated: bool = False) -> str:
    """Notation, corner order and unit of boxes in words; ``unit`` is a text such as `unit_of` returns."""
    notation = _NOTATIONS.get(dialect, _NOTATIONS["brackets"])[named]
    if dialect == "geochat" and rotated:
        notation = _GEOCHAT_ROTATED
    text = notation.format(box=_ROTATED if rotated else _CORNERS)
    if dialect == "polygons":
        return f"{text}, the corners in order, {unit}"
    corners = "top left and bottom right corner"
    if rotated:
        corners += " of the box before it is rotated about its centre, clockwise by the angle in degrees"
    return f"{text}: {corners}, {unit}"


def unit_of(frame: Frame) -> str:
    """The unit of boxes in words."""
    if frame.kind == "pixel":
        return f"in pixels of an image of {frame.width:g} x {frame.height:g} pixels"
    return f"in {'percent' if frame.kind == 'percent' else 'thousandths'} of the image's width and height"


def _sentences(example: Example, question: str, list_classes: int, caption_words: int | None) -> list[str]:
    task = TASKS[example.task]
    sentences = []
    if task.target_kind in ("boxes", "grounded") or not states_form(question):
        if task.target_kind == "captions" and caption_words:
            sentences.append(f"Answer with about {caption_words} words.")
        else:
            boxes = box_format(
                example.dialect,
                unit_of(example.frame),
                named=writes_labels(example),
                rotated=example.rotated or is_rotated(example.target),
            )
            sentences.append(task.instruction.replace(BOXES, boxes))
    has_choice = task.target_kind == "classes" or needs_labels(example)
    if has_choice and 0 < len(example.labels) <= list_classes and not _lists(question, example.labels):
        sentences.append(f"Classes: {'; '.join(example.labels)}.")
    if task.target_kind not in ("boxes", "grounded") and _has_box(question):
        sentences.append(f"Boxes are {unit_of(example.frame)}.")
    return sentences


def _lists(question: str, names: tuple[str, ...]) -> bool:
    """Whether a question lists all names."""
    folded = question.casefold()
    return all(name.casefold() in folded for name in names)


def _has_box(question: str) -> bool:
    return without_boxes(question) != " ".join(question.split())
