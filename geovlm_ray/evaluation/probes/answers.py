"""Targets as answer text, and the pool of references that degenerate answers are built from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geovlm_ray.core.schema import Example, GroundedText, target_texts
from geovlm_ray.tasks import TASKS, TargetKind
from geovlm_ray.tasks.answers.box_dialects import strip_boxes
from geovlm_ray.tasks.answers.labels import BIGEARTHNET, BIGEARTHNET_43


@dataclass(frozen=True)
class Item:
    """A reference, its index among the references of its reward, and all references of its task (``pool``)."""

    example: Example
    index: int
    pool: Sequence[Example]

    @property
    def kind(self) -> TargetKind:
        """The kind of its target."""
        return TASKS[self.example.task].target_kind


def texts(example: Example) -> tuple[str, ...]:
    """The text of a target: class names, an answer, reference captions, or a grounded description without boxes."""
    found = target_texts(example.target)
    return tuple(map(strip_boxes, found)) if isinstance(example.target, GroundedText) else found


def others(item: Item) -> list[Example]:
    """The other references of an item's task: what a policy knows that does not look at the image."""
    return [example for example in item.pool if example is not item.example]


def vocabulary(item: Item) -> tuple[str, ...]:
    """Class names of a record's dataset: its own label list, the BigEarthNet-43 classes, or the names in the pool."""
    if item.example.labels:
        return item.example.labels
    named = tuple(dict.fromkeys(name for e in item.pool for name in texts(e)))
    return BIGEARTHNET_43 if set(named) <= set(BIGEARTHNET) else named
