"""References as the text of an answer, and the pool of references that degenerate answers draw from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from geovlm_ray.schema import Box, Example, GroundedText
from geovlm_ray.tasks import TASKS, TargetKind
from geovlm_ray.tasks.boxes import strip_boxes
from geovlm_ray.tasks.labels import BIGEARTHNET, BIGEARTHNET_43


@dataclass(frozen=True)
class Item:
    """A reference, its place among those of its reward, and all references of its task."""

    example: Example
    index: int
    pool: Sequence[Example]

    @property
    def kind(self) -> TargetKind:
        """The form of its target."""
        return TASKS[self.example.task].target_kind


def texts(example: Example) -> tuple[str, ...]:
    """The words of a target: class names, the answer, the references of a caption, a grounded description's text."""
    target = example.target
    if isinstance(target, GroundedText):
        return (strip_boxes(target.text),)
    if isinstance(target, str):
        return (target,)
    return tuple(t for t in target if isinstance(t, str))


def boxes(example: Example) -> tuple[Box, ...]:
    """The boxes of a target."""
    target = example.target.boxes if isinstance(example.target, GroundedText) else example.target
    return tuple(b for b in target if isinstance(b, Box))


def vocabulary(item: Item) -> tuple[str, ...]:
    """All class names of a record's dataset: its own list, BigEarthNet's, or what the references name."""
    if item.example.labels:
        return item.example.labels
    named = tuple(dict.fromkeys(name for e in item.pool for name in texts(e)))
    return BIGEARTHNET_43 if set(named) <= set(BIGEARTHNET) else named


def written(found: Sequence[tuple[Sequence[float], str | None]], dialect: str = "brackets") -> str:
    """Boxes, each with a label or None, in a dialect; labels stand where the dialect has a place for them."""
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
    return ", ".join((f"{name} " if name else "") + f"[{', '.join(row)}]" for row, name in rows) or "[]"
