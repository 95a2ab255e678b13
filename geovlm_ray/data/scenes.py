"""Synthetic remote-sensing scenes: an unlimited, seeded dataset with every task.

The image reference ``scene:TASK:SEED:INDEX:K`` is the K-th image of a record. Images are rendered where they are
needed, so no files are transferred. Images have a side of `SCENE_SIZE` pixels; boxes are in percent of the side.
"""

from __future__ import annotations

import hashlib
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from geovlm_ray.core.schema import Example
from geovlm_ray.data.scene_draw import DrawnScene, render
from geovlm_ray.data.scene_tasks import BUILDERS, Record

SCENE_TASKS = tuple(BUILDERS)
"""The built-in tasks with scenes; a plugin may add builders, whose scenes are sampled if a stage names their task."""
SCENES_DATASET = "drawn-scenes"
"""Dataset name in examples."""
GROUND_SAMPLING_DISTANCE = 0.5


def scene_example(task: str, seed: int, index: int, split: str = "train") -> Example:
    """Example ``index`` of a task for a seed; the same in every process.

    Raises:
        ValueError: The task is unknown.
    """
    record = _record(task, seed, index)
    return Example(
        id=f"{task}-{seed}-{index}",
        task=task,
        images=tuple(f"scene:{task}:{seed}:{index}:{k}" for k in range(len(record.scenes))),
        question=record.question,
        target=record.target,
        dataset=SCENES_DATASET,
        split=split,
        labels=record.labels,
        gsd=GROUND_SAMPLING_DISTANCE,
        sensor=record.scenes[0].sensor,
    )


def render_scene(reference: str) -> Image.Image:
    """Render the RGB image of a reference.

    Raises:
        ValueError: The reference is not of the form ``scene:TASK:SEED:INDEX:K``, or the record has no such image.
    """
    parts = reference.split(":")
    if len(parts) != 5 or parts[0] != "scene" or not all(p.isdecimal() for p in parts[2:]):
        raise ValueError(f"expected scene:TASK:SEED:INDEX:K, found {reference!r}")
    scenes = _record(parts[1], int(parts[2]), int(parts[3])).scenes
    if int(parts[4]) >= len(scenes):
        raise ValueError(f"{reference!r}: expected an image index below {len(scenes)}, found {parts[4]}")
    return render(scenes[int(parts[4])])


@cache
def drawing_version() -> str:
    """Hash of the code that draws scenes: images that were drawn by other code are not those of the same reference."""
    code = (Path(__file__).with_name(f"{name}.py").read_bytes() for name in ("scene_draw", "scene_tasks"))
    return hashlib.sha256(b"".join(code)).hexdigest()


def demonstration(example: Example) -> str:
    """Reference response to a synthetic example: one short sentence of reasoning, then the answer."""
    record = _record_of(example)
    return f"<think>{record.reasoning}</think><answer>{record.answer}</answer>"


def scenes_of(example: Example) -> tuple[DrawnScene, ...]:
    """Scene descriptions behind the images of a synthetic example."""
    return _record_of(example).scenes


def _record_of(example: Example) -> Record:
    _, seed, index = example.id.rsplit("-", 2)
    return _record(example.task, int(seed), int(index))


@lru_cache(maxsize=4096)
def _record(task: str, seed: int, index: int) -> Record:
    if task not in BUILDERS:
        raise ValueError(f"expected one of {', '.join(BUILDERS)}, found {task!r}")
    return BUILDERS[task](np.random.default_rng([seed, index, list(BUILDERS).index(task)]))
