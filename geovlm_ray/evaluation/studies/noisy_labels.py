"""Plugin: tasks ``noisy_TASK`` with the generated scenes of TASK, half of them with a wrong reference answer.

Wrong boxes are shifted; another wrong answer is that of another record of the task, with its reasoning. Scenes and
questions do not change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from geovlm_ray.core.schema import Box, target_boxes
from geovlm_ray.data.scene_tasks import BUILDERS, Record, Rng
from geovlm_ray.tasks import TASKS

NOISY_TASKS = ("multilabel_classification", "vqa", "object_detection", "visual_grounding")
PREFIX = "noisy_"
NOISE = 0.5
"""Share of records with a wrong answer; some of these answers happen to be right."""
MAX_SHIFT = 20
"""Largest shift of a box along each axis, in percent of the image side."""


def noisy(build: Callable[[Rng], Record]) -> Callable[[Rng], Record]:
    """A builder of the same records with noisy answers."""

    def build_noisy(rng: Rng) -> Record:
        record = build(rng)
        if rng.random() >= NOISE:
            return record
        if boxes := target_boxes(record.target):
            shifted = tuple(_shifted(rng, box) for box in boxes)
            rows = ("[" + ", ".join(f"{int(value):02d}" for value in box.coords) + "]" for box in shifted)
            return replace(record, target=shifted, answer=f"[{', '.join(rows)}]")
        other = build(rng)
        return replace(record, target=other.target, reasoning=other.reasoning, answer=other.answer)

    return build_noisy


def _shifted(rng: Rng, box: Box) -> Box:
    x1, y1, x2, y2 = box.coords
    dx, dy = rng.integers(-MAX_SHIFT, MAX_SHIFT + 1, 2)
    dx, dy = float(np.clip(dx, -x1, 99 - x2)), float(np.clip(dy, -y1, 99 - y2))
    return Box((x1 + dx, y1 + dy, x2 + dx, y2 + dy))


for _task in NOISY_TASKS:
    TASKS[PREFIX + _task] = replace(TASKS[_task], name=PREFIX + _task)
    BUILDERS[PREFIX + _task] = noisy(BUILDERS[_task])
