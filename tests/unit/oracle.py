"""A scene with known objects, and engines that answer every window of it rightly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS

from geovlm_ray.core.schema import Prompt, Sample, SampleGroup
from geovlm_ray.data.geo.scene import Georeference, Window
from geovlm_ray.data.geo.windows import covering_windows

UTM = "EPSG:32633"
TURNED = Affine.translation(500_000, 4_100_000) @ Affine.rotation(20) @ Affine.scale(0.5, -0.5)
"""Half a metre a pixel, turned by 20 degrees."""
PLACE = Georeference(CRS.from_string(UTM), TURNED)
Box = tuple[float, float, float, float]


def write_scene(path: Path, width: int, height: int, objects: Sequence[Box] = (), **profile: Any) -> Path:
    """Write a grey GeoTIFF with bright rectangles, strip by strip; ``profile`` overrides its format."""
    settings = {"crs": UTM, "transform": TURNED, "count": 3, "dtype": "uint8", "tiled": True, **profile}
    rng = np.random.default_rng(0)
    with rasterio.open(path, "w", driver="GTiff", width=width, height=height, **settings) as file:
        for top in range(0, height, 512):
            rows = min(512, height - top)
            strip = rng.integers(60, 120, (settings["count"], rows, width)).astype(settings["dtype"])
            for x1, y1, x2, y2 in objects:
                low, high = max(0, int(y1) - top), min(rows, int(y2) - top)
                strip[:, max(0, low) : max(0, high), int(x1) : int(x2)] = 250
            file.write(strip, window=rasterio.windows.Window(0, top, width, rows))
    return path


def scattered(count: int, width: int, height: int, sides: tuple[int, int], seed: int = 0) -> list[Box]:
    """Random rectangles at whole pixels that do not touch."""
    rng = np.random.default_rng(seed)
    found: list[Box] = []
    while len(found) < count:
        w, h = rng.integers(*sides, 2)
        x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
        box = (float(x), float(y), float(x + w), float(y + h))
        if not any(box[0] < o[2] + 4 and o[0] < box[2] + 4 and box[1] < o[3] + 4 and o[1] < box[3] + 4 for o in found):
            found.append(box)
    return found


@dataclass
class Oracle:
    """Engines that know the objects of one scene, and answer with their visible parts.

    With ``labels``, they write JSON; with ``answer``, they give this text about every window. They raise
    KeyboardInterrupt after ``dies_after`` windows.
    """

    objects: Sequence[Box]
    width: int
    height: int
    side: int
    overlap: int
    labels: Sequence[str] = ()
    answer: str | None = None
    dies_after: int = 10**9
    asked: int = 0
    closed: bool = False
    windows: list[Window] = field(init=False)

    def __post_init__(self) -> None:
        self.windows = list(covering_windows(self.width, self.height, self.side, self.overlap))

    def submit(self, prompts: Sequence[Prompt], **sampling: Any) -> Iterator[list[SampleGroup]]:
        size = sampling["group_size"]
        for prompt in prompts:
            if self.asked >= self.dies_after:
                raise KeyboardInterrupt
            self.asked += 1
            assert all(Path(image).is_file() for image in prompt.example.images)
            window = self.windows[prompt.group_id - 1]
            answer = self.answer or self._boxes(window, *prompt.example.frame.scale)
            sample = Sample((1, 2), (-0.1, -0.2), f"<think>look</think><answer>{answer}</answer>", "stop", 0)
            yield [SampleGroup(prompt, (sample,) * size)]

    def _boxes(self, window: Window, width: float, height: float) -> str:
        texts = []
        for k, (x1, y1, x2, y2) in enumerate(self.objects):
            left, top = max(x1, window.left) - window.left, max(y1, window.top) - window.top
            right, bottom = min(x2, window.right) - window.left, min(y2, window.bottom) - window.top
            if right - left >= 2 and bottom - top >= 2:
                scales = (width / window.width, height / window.height) * 2
                numbers = ", ".join(f"{v * s:.4f}" for v, s in zip((left, top, right, bottom), scales, strict=True))
                box = f"[{numbers}]"
                texts.append(f'{{"bbox_2d": {box}, "label": "{self.labels[k]}"}}' if self.labels else box)
        answer = ", ".join(texts)
        return f"[{answer}]" if self.labels else answer or "none"

    def close(self) -> None:
        self.closed = True
