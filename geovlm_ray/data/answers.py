"""The ideal response to an example: what supervised fine-tuning teaches, and what earns the full reward."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import iou_matrix
from geovlm_ray.core.schema import Box, Example, GroundedText
from geovlm_ray.data.scenes import DRAWN_SCENES, demonstration
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.boxes import parse_boxes, replace_boxes, strip_boxes
from geovlm_ray.tasks.grammar import Parsed, ThinkMode, parse_response

Reasoning = Literal["empty", "none"]
THINK_MODES: dict[Reasoning, ThinkMode] = {"empty": "required", "none": "none"}
"""The answer grammar that a template fits."""

FOUND = 0.5
"""IoU below which a box written in whole numbers would count as missed; it then gets decimals."""
MOST_DECIMALS = 4


def response_text(example: Example, reasoning: Reasoning = "empty", choice: int = 0, *, rotated: bool = False) -> str:
    """The ideal response, tags included.

    With ``empty`` the reasoning is the example's own, or nothing between its tags where it has none; with ``none``
    there is no reasoning and there are no tags for it. ``choice`` and ``rotated`` are those of `answer_text`.

    Raises:
        DataError: the example has no usable target, or target or reasoning hold one of the tags.
    """
    mode = THINK_MODES[reasoning]
    answer = answer_text(example, choice, rotated=rotated)
    thought = f"<think>{_reasoning(example)}</think>" if mode == "required" else ""
    response = f"{thought}<answer>{answer}</answer>"
    if parse_response(response, mode) is None:
        raise DataError(f"record {example.id!r}: its target or reasoning holds one of the tags of a response")
    return response


def answer_text(example: Example, choice: int = 0, *, rotated: bool = False) -> str:
    """What stands between the answer tags of the ideal response, in the example's frame and dialect.

    Of several captions the one number ``choice`` is taken, counted round and round. Boxes are horizontal, or keep
    their angle where ``rotated``; their coordinates are whole numbers unless that would miss the box.

    Raises:
        DataError: the example has no usable target.
    """
    if example.dataset == DRAWN_SCENES:
        return _demonstrated(example).answer
    target = example.target
    if isinstance(target, GroundedText):
        return _grounded(example, target, rotated)
    if isinstance(target, str):
        return _said(example, target)
    kind = TASKS[example.task].target_kind
    if kind == "boxes":
        return _boxes(example, [b for b in target if isinstance(b, Box)], rotated)
    texts = [str(t).strip() for t in target if str(t).strip()]
    if kind == "captions" and texts:
        return texts[choice % len(texts)]
    return _said(example, ", ".join(dict.fromkeys(texts)))


def written(found: Sequence[tuple[Sequence[float], str | None]], dialect: str = "brackets") -> str:
    """Boxes, each with a label or None, in a dialect; labels stand where the dialect has a place for them."""
    if not found:
        return "[]"
    if dialect == "json":
        return json.dumps([{"bbox_2d": list(row)} | ({"label": name} if name else {}) for row, name in found])
    rows = [([f"{v:g}" for v in row], name) for row, name in found]
    if dialect == "geochat":
        return "".join(
            "{" + "".join(f"<{v}>" for v in row[:4]) + "".join(f"|<{v}>" for v in row[4:]) + "}" for row, _ in rows
        )
    if dialect == "tagged":
        return "".join(
            (f"<ref>{name}</ref>" if name else "") + f"<box>[[{', '.join(row)}]]</box>" for row, name in rows
        )
    listed = ", ".join((f"{name} " if name else "") + f"[{', '.join(row)}]" for row, name in rows)
    return listed if any(name for _, name in rows) else f"[{listed}]"


def _grounded(example: Example, target: GroundedText, rotated: bool) -> str:
    """The text with its boxes where it has them, or after it."""
    text = _said(example, strip_boxes(target.text))
    inside = parse_boxes(target.text, example.dialect)
    if inside is not None and not inside.malformed and len(inside.boxes) == len(target.boxes):
        boxes = iter(target.boxes)
        # The text is in the dataset's frame, the boxes are in that of the answer.
        placed = replace_boxes(target.text, lambda coords: _rounded(next(boxes, Box(coords)), rotated))
        return " ".join(placed.split())
    rows = [(_rounded(b, rotated), b.label if example.dialect != "brackets" else None) for b in target.boxes]
    return f"{text} {written(rows, example.dialect)}" if rows else text


def _boxes(example: Example, boxes: Sequence[Box], rotated: bool) -> str:
    """Boxes in the example's dialect; brackets carry labels only where boxes of several are told apart."""
    named = example.dialect != "brackets" or len({b.label for b in boxes}) > 1
    return written([(_rounded(b, rotated), b.label if named else None) for b in boxes], example.dialect)


def _rounded(box: Box, rotated: bool) -> tuple[float, ...]:
    """The coordinates with as few decimals as find the box."""
    coords = box.coords if rotated else box.coords[:4]
    for decimals in range(MOST_DECIMALS + 1):
        rounded = tuple(round(float(v), decimals) for v in coords)
        if iou_matrix([rounded], [coords])[0, 0] >= FOUND:
            break
    return tuple(int(v) if v.is_integer() else v for v in rounded)


def _said(example: Example, text: str) -> str:
    if not text.strip():
        raise DataError(f"record {example.id!r}: expected a target that says something, found {example.target!r}")
    return text.strip()


def _reasoning(example: Example) -> str:
    if example.dataset == DRAWN_SCENES:
        return _demonstrated(example).think or ""
    return (example.reasoning or "").strip()


def _demonstrated(example: Example) -> Parsed:
    parsed = parse_response(demonstration(example))
    assert parsed is not None
    return parsed
