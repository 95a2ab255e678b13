"""Drawn remote-sensing scenes: every task family, seeded, without end.

An image reference ``scene:TASK:SEED:INDEX:K`` stands for the K-th image of a record and is drawn wherever it
is needed, so no file travels. The size of a scene is `SCENE_SIZE` pixels; boxes are percent of the side.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from geovlm_ray.core.schema import TASK_NAMES, Example
from geovlm_ray.data.scene_draw import COVERS, OBJECTS, Scene, render
from geovlm_ray.data.scene_tasks import BUILDERS, Record

SCENE_TASKS = TASK_NAMES
DRAWN_SCENES = "drawn-scenes"
"""Name of the dataset."""
GROUND_SAMPLING_DISTANCE = 0.5


def scene_example(task: str, seed: int, index: int, split: str = "train") -> Example:
    """Scene ``index`` of a task under a seed: the same in every process.

    Raises:
        ValueError: the task is unknown.
    """
    record = _record(task, seed, index)
    return Example(
        id=f"{task}-{seed}-{index}",
        task=task,
        images=tuple(f"scene:{task}:{seed}:{index}:{k}" for k in range(len(record.scenes))),
        question=record.question,
        target=record.target,
        dataset=DRAWN_SCENES,
        split=split,
        labels=record.labels,
        gsd=GROUND_SAMPLING_DISTANCE,
        sensor="drawn",
    )


def render_scene(reference: str) -> Image.Image:
    """The RGB image behind a reference.

    Raises:
        ValueError: it is not of the form ``scene:TASK:SEED:INDEX:K``, or the record has no such image.
    """
    parts = reference.split(":")
    if len(parts) != 5 or parts[0] != "scene" or not all(p.isdecimal() for p in parts[2:]):
        raise ValueError(f"expected scene:TASK:SEED:INDEX:K, found {reference!r}")
    scenes = _record(parts[1], int(parts[2]), int(parts[3])).scenes
    if int(parts[4]) >= len(scenes):
        raise ValueError(f"{reference!r}: the record has {len(scenes)} images")
    return render(scenes[int(parts[4])])


def demonstration(example: Example) -> str:
    """The ideal response to a drawn scene: one short sentence of reasoning, then the answer."""
    _, seed, index = example.id.rsplit("-", 2)
    record = _record(example.task, int(seed), int(index))
    return f"<think>{record.reasoning}</think><answer>{record.answer}</answer>"


def scenes_of(example: Example) -> tuple[Scene, ...]:
    """What the images of a drawn example show."""
    _, seed, index = example.id.rsplit("-", 2)
    return _record(example.task, int(seed), int(index)).scenes


@lru_cache(maxsize=4096)
def _record(task: str, seed: int, index: int) -> Record:
    if task not in BUILDERS:
        raise ValueError(f"expected a task among {', '.join(BUILDERS)}, found {task!r}")
    return BUILDERS[task](np.random.default_rng([seed, index, SCENE_TASKS.index(task)]))


__all__ = ["COVERS", "OBJECTS", "SCENE_TASKS", "demonstration", "render_scene", "scene_example", "scenes_of"]
