"""Pictures of a scene's bands: true or false colour, one band, or a normalized difference of two, with one stretch.

The stretch is that of `geovlm_ray.core.pixels`, with limits from the whole scene, so that windows look alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

import numpy as np

from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.pixels import PERCENTILES, PixelSettings, to_rgb
from geovlm_ray.data.geo.scene import PREVIEW_SIDE, Scene, Window

_BANDS = re.compile(r"(\d+)(?:,(\d+),(\d+))?")
_DIFFERENCE = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True)
class Composite:
    """Bands of one picture, numbered from 1: three (red, green, blue) or one (grey).

    With ``is_difference``, two bands a, b and the grey picture of (a - b) / (a + b), from -1 to 1.
    """

    bands: tuple[int, ...]
    is_difference: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``4,3,2``, ``1`` or, for a normalized difference, ``8/4``.

        Raises:
            ConfigError: the text has another form.
        """
        if found := _DIFFERENCE.fullmatch(text):
            bands, is_difference = found.groups(), True
        elif found := _BANDS.fullmatch(text):
            bands, is_difference = tuple(b for b in found.groups() if b), False
        else:
            bands, is_difference = (), False
        if not bands or "0" in bands:
            raise ConfigError(f"--bands: expected R,G,B, one band, or A/B, numbered from 1, found {text!r}")
        return cls(tuple(map(int, bands)), is_difference)

    @classmethod
    def default(cls, scene: Scene) -> Self:
        """The first three bands, or the first of fewer."""
        return cls((1, 2, 3) if scene.bands >= 3 else (1,))


class Renderer:
    """Renders windows of a scene as uint8 RGB, [rows, columns, 3]; pixels without data are black.

    ``value_range`` maps to 0..255; without it, ``percentiles`` of each band's values in the whole scene do. As in
    training, 8-bit bands are only stretched if one of the two is set.

    Raises:
        DataError: the scene has fewer bands, or cannot be read.
    """

    def __init__(
        self,
        scene: Scene,
        composite: Composite,
        percentiles: tuple[float, float] = PERCENTILES,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        self.scene, self.composite = scene, composite
        preview = scene.read(composite.bands, side=PREVIEW_SIDE)
        is_plain = preview.dtype == np.uint8 and value_range is None and percentiles == PERCENTILES
        self._ranges: list[tuple[float, float]] | None = None
        if composite.is_difference:
            self._ranges = [value_range or (-1.0, 1.0)]
        elif not is_plain:
            bands = [preview[..., i].compressed() for i in range(preview.shape[2])]
            self._ranges = [value_range or _limits(values, percentiles) for values in bands]

    def render(self, window: Window | None = None, side: int | None = None) -> tuple[np.ndarray, bool]:
        """The picture of a window, and whether any of its pixels has data; ``side`` is as in `Scene.read`."""
        values = self.scene.read(self.composite.bands, window, side)
        has_data = ~np.ma.getmaskarray(values).all(axis=2)
        if self.composite.is_difference:
            first, second = (values[..., i].astype(np.float32) for i in (0, 1))
            values = np.ma.divide(first - second, first + second)[..., None]
            has_data = ~np.ma.getmaskarray(values).all(axis=2)
        filled = values.filled(0)
        palette = self.scene.palette()
        if palette is not None and filled.dtype == np.uint8:
            rgb = palette[filled[..., 0]]
        elif self._ranges is None:
            rgb = to_rgb(filled, PixelSettings(bands=tuple(range(1, filled.shape[2] + 1))))
        else:
            channels = [
                to_rgb(filled[..., i : i + 1], PixelSettings(bands=(1,), value_range=limits))[..., 0]
                for i, limits in enumerate(self._ranges)
            ]
            rgb = np.stack(channels * (3 // len(channels)), axis=2)
        return rgb * has_data[..., None].astype(np.uint8), bool(has_data.any())


def _limits(values: np.ndarray, percentiles: tuple[float, float]) -> tuple[float, float]:
    """Limits of the stretch of one band; of a nearly constant one its whole range, and at least a range of 1."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return 0.0, 1.0
    low, high = map(float, np.percentile(finite, percentiles))
    if not low < high:
        low, high = float(finite.min()), float(finite.max())
    return (low, high) if low < high else (low, low + 1.0)
