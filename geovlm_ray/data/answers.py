"""Reference responses of examples: the targets of supervised fine-tuning, which earn the full reward."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame, envelopes, iou_matrix
from geovlm_ray.core.schema import Box, Example, GroundedText, Rotated, keeps_angles
from geovlm_ray.data.scenes import SCENES_DATASET, demonstration
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.box_dialects import parse_boxes, replace_boxes
from geovlm_ray.tasks.answers.box_labels import writes_labels
from geovlm_ray.tasks.answers.box_reader import without_boxes
from geovlm_ray.tasks.answers.grammar import Parsed, ThinkMode, parse_response, written_response

Reasoning = Literal["empty", "none"]
THINK_MODES: dict[Reasoning, ThinkMode] = {"empty": "required", "none": "none"}
"""Answer grammar of each reasoning mode."""

MIN_IOU = 0.5
"""Minimum IoU of a rounded box with the original; below it, coordinates get more decimals."""
MAX_DECIMALS = 4


def response_text(
    example: Example, reasoning: Reasoning = "empty", choice: int = 0, *, rotated: Rotated = "auto"
) -> str:
    """Reference response of an example, including the tags.

    ``reasoning="empty"`` writes the example's reasoning between think tags, or empty think tags if it has none;
    ``"none"`` omits the reasoning and its tags. ``choice`` and ``rotated`` are passed to `answer_text`.

    Raises:
        DataError: The example has no usable target, or its target or reasoning contains a response tag.
    """
    mode = THINK_MODES[reasoning]
    answer = answer_text(example, choice, rotated=rotated)
    response = written_response(answer, _reasoning(example) if mode == "required" else None)
    if parse_response(response, mode) is None:
        raise DataError(f"record {example.id!r}: expected target and reasoning without response tags, found a tag")
    return response


def answer_text(example: Example, choice: int = 0, *, rotated: Rotated = "auto") -> str:
    """Text between the answer tags of the reference response, in the example's frame and dialect.

    ``choice`` is the index of the caption to use, modulo their number; ``rotated`` is the setting of the reward:
    boxes keep their angles, or become their horizontal envelopes. Coordinates are integers, with decimals only where
    rounding would reduce the IoU below `MIN_IOU`.

    Raises:
        DataError: The example has no usable target.
    """
    if example.dataset == SCENES_DATASET and (example.dialect, example.frame) == ("brackets", Frame()):
        return _parsed_demonstration(example).answer
    target = example.target
    if isinstance(target, GroundedText):
        return _format_grounded(example, target, keeps_angles(rotated, target))
    if isinstance(target, str):
        return _require_text(example, target)
    kind = TASKS[example.task].target_kind
    if kind == "boxes":
        boxes = [b for b in target if isinstance(b, Box)]
        return _format_target_boxes(example, boxes, keeps_angles(rotated, target))
    texts = [str(t).strip() for t in target if str(t).strip()]
    if kind == "captions" and texts:
        return texts[choice % len(texts)]
    return _require_text(example, ", ".join(dict.fromkeys(texts)))


def format_boxes(boxes: Sequence[tuple[Sequence[float], str | None]], dialect: str = "brackets") -> str:
    """Format boxes, each with an optional label, in a dialect; in ``geochat`` labels are GeoChat's ``<p>`` phrases."""
    if not boxes:
        return "[]"
    if dialect == "json":
        return json.dumps([{"bbox_2d": list(row)} | ({"label": name} if name else {}) for row, name in boxes])
    rows = [([f"{v:g}" for v in row], name) for row, name in boxes]
    if dialect == "geochat":
        return "".join(
            (f"<p>{name}</p>" if name else "")
            + "{"
            + "".join(f"<{v}>" for v in row[:4])
            + "".join(f"|<{v}>" for v in row[4:])
            + "}"
            for row, name in rows
        )
    if dialect == "tagged":
        return "".join(
            (f"<ref>{name}</ref>" if name else "") + f"<box>[[{', '.join(row)}]]</box>" for row, name in rows
        )
    joined = ", ".join((f"{name} " if name else "") + f"[{', '.join(row)}]" for row, name in rows)
    return joined if any(name for _, name in rows) else f"[{joined}]"


def _format_grounded(example: Example, target: GroundedText, rotated: bool) -> str:
    """The text with its boxes inline if it contains all of them, else with the boxes appended."""
    text = _require_text(example, without_boxes(target.text))
    inline = parse_boxes(target.text, example.dialect)
    if inline is not None and not inline.malformed and len(inline.boxes) == len(target.boxes):
        boxes = iter(target.boxes)
        # Boxes in the text are in the dataset's frame; replace them by the target boxes, in the answer frame.
        replaced = replace_boxes(target.text, lambda coords: _rounded(next(boxes, Box(coords)), rotated))
        return " ".join(replaced.split())
    labelled = writes_labels(example)
    rows = [(_rounded(b, rotated), b.label if labelled else None) for b in target.boxes]
    return f"{text} {format_boxes(rows, example.dialect)}" if rows else text


def _format_target_boxes(example: Example, boxes: Sequence[Box], rotated: bool) -> str:
    """Boxes in the example's dialect, with labels if the dialect or the task has them."""
    labelled = writes_labels(example)
    return format_boxes([(_rounded(b, rotated), b.label if labelled else None) for b in boxes], example.dialect)


def _rounded(box: Box, rotated: bool) -> tuple[float, ...]:
    """Coordinates with the fewest decimals that keep the IoU at `MIN_IOU` or above."""
    coords = box.coords if rotated else envelopes([box.coords])[0].tolist()
    for decimals in range(MAX_DECIMALS + 1):
        rounded = tuple(round(float(v), decimals) for v in coords)
        if iou_matrix([rounded], [coords], rotated)[0, 0] >= MIN_IOU:
            break
    return tuple(int(v) if v.is_integer() else v for v in rounded)


def _require_text(example: Example, text: str) -> str:
    if not text.strip():
        raise DataError(f"record {example.id!r}: expected a non-empty target, found {example.target!r}")
    return text.strip()


def _reasoning(example: Example) -> str:
    if example.dataset == SCENES_DATASET:
        return _parsed_demonstration(example).think or ""
    return (example.reasoning or "").strip()


def _parsed_demonstration(example: Example) -> Parsed:
    parsed = parse_response(demonstration(example))
    assert parsed is not None
    return parsed
