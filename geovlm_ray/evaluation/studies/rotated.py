"""Synthetic scenes with one ship at a random angle, as samples with rotated boxes, for the box study."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from geovlm_ray.core.files import write_atomically
from geovlm_ray.data.scene_draw import COLOURS, SCENE_SIZE, DrawnScene, render

SIZES = {"train": 2000, "test": 400}
PAINTS = ("grey", "red", "white", "yellow")
SCALE = 4
"""Supersampling factor that anti-aliases the ships."""


def write_rotated(folder: Path) -> None:
    """Write ``train.jsonl`` and ``test.jsonl`` with their images, unless they exist."""
    for seed, (split, count) in enumerate(SIZES.items()):
        file = folder / f"{split}.jsonl"
        if not file.is_file():
            (folder / split).mkdir(parents=True, exist_ok=True)
            lines = [_record(folder, split, i, np.random.default_rng([seed, i])) for i in range(count)]
            write_atomically(file, "".join(f"{json.dumps(line)}\n" for line in lines))


def _record(folder: Path, split: str, i: int, rng: np.random.Generator) -> dict[str, object]:
    """Render a scene and return its record; the box is ``[x1, y1, x2, y2, angle]`` in integer percent and degrees."""
    length, paint = rng.uniform(40, 60), str(rng.choice(PAINTS))
    width, angle = length / rng.uniform(2.5, 3.5), int(rng.integers(0, 180))
    margin = length / 2 + 2
    x, y = rng.uniform(margin, SCENE_SIZE - margin, 2)
    water = render(DrawnScene(("water",), texture_seed=int(rng.integers(2**31)), light_seed=int(rng.integers(2**31))))
    name = f"{split}/{i:04d}.png"
    _with_ship(water, (x, y), (length, width), angle, COLOURS[paint]).save(folder / name)
    corners = (x - length / 2, y - width / 2, x + length / 2, y + width / 2)
    box = [round(100 * value / SCENE_SIZE) for value in corners]
    return {
        "id": f"{split}-{i}",
        "task": "visual_grounding",
        "images": [name],
        "prompt": f"locate the {paint} ship .",
        "reference": str([[*box, angle]]),
        "source": "drawn rotated ships",
        "split": split,
    }


def _with_ship(
    image: Image.Image, centre: tuple[float, float], size: tuple[float, float], angle: int, colour: tuple[int, ...]
) -> Image.Image:
    large = image.resize((SCENE_SIZE * SCALE, SCENE_SIZE * SCALE), Image.Resampling.BICUBIC)
    half = np.array(size) / 2
    outline = np.array([(-1, -1), (0.5, -1), (1, 0), (0.5, 1), (-1, 1)]) * half
    bridge = np.array([(-0.7, -0.6), (-0.3, -0.6), (-0.3, 0.6), (-0.7, 0.6)]) * half
    draw = ImageDraw.Draw(large)
    radians = np.deg2rad(angle)
    rotation = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    for shape, shade in ((outline, 1.0), (bridge, 0.7)):
        points = (shape @ rotation + np.array(centre)) * SCALE
        draw.polygon([tuple(point) for point in points], fill=tuple(int(shade * value) for value in colour))
    return large.resize((SCENE_SIZE, SCENE_SIZE), Image.Resampling.BOX)
