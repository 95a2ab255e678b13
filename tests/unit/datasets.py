"""Helpers that write images and small converted datasets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from geovlm_ray.core.schema import Example
from geovlm_ray.data.convert import CARD
from geovlm_ray.data.scenes import render_scene, scene_example
from geovlm_ray.data.table import Row, to_table
from geovlm_ray.tasks import TASKS


def write_image(path: Path, seed: int, size: tuple[int, int] = (96, 96), strength: float = 60.0) -> str:
    """Write an image of smooth random shapes; ``strength`` is their contrast in grey levels."""
    rng = np.random.default_rng(seed)
    shapes = Image.fromarray((128 + rng.normal(0, strength, (8, 8, 3))).clip(0, 255).astype(np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes.resize(size, Image.Resampling.BICUBIC).save(path)
    return path.name


def example(k: int, images: tuple[str, ...] = (), **values: object) -> Example:
    """VQA example number k."""
    record = Example(f"r{k}", "vqa", images, f"How many ships are in scene {k}?", str(k), dataset="harbours")
    return replace(record, **values)  # type: ignore[arg-type]


def write_dataset(folder: Path, examples: Sequence[Example], shards: int = 1, root: str = ".") -> Path:
    """Write a converted dataset whose records come from lines of ``source.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [Row(e, "source.jsonl", n) for n, e in enumerate(examples, 1)]
    for k in range(shards):
        pq.write_table(to_table(rows[k::shards]), folder / f"part-{k:05d}.parquet")
    (folder / CARD).write_text(json.dumps({"format": "samples", "image_root": root, "header": {}}))
    return folder


def write_scenes_dataset(folder: Path, each: int = 2) -> Path:
    """Write a dataset of synthetic scenes of every task, with image files."""
    examples = []
    for task in TASKS:
        for k in range(each):
            scene = scene_example(task, 0, k)
            names = [f"{task}-{k}-{i}.png" for i in range(len(scene.images))]
            for name, reference in zip(names, scene.images, strict=True):
                folder.mkdir(parents=True, exist_ok=True)
                render_scene(reference).save(folder / name)
            examples.append(replace(scene, images=tuple(names), dataset="scenes", sensor="drawn"))
    return write_dataset(folder, examples)
