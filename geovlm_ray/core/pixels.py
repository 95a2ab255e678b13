"""Conversion of multi-band remote-sensing images to 8-bit RGB."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from geovlm_ray.core.errors import DataError

PERCENTILES = (2.0, 98.0)
LARGEST = sys.float_info.max
BLOCK_VALUES = 2**20
"""Number of values that are stretched at once, which limits the memory for intermediate results."""


@dataclass(frozen=True)
class PixelSettings:
    """Band selection and contrast stretch of a dataset; the defaults leave 8-bit RGB images unchanged.

    ``bands`` (1-based, as in GDAL) selects one band (greyscale) or three (red, green, blue); empty selects the first
    three, or the first if the image has fewer. ``value_range`` maps to 0..255; without it, ``percentiles`` of each
    band's valid values do. 8-bit images are stretched only if one of the two is set to a non-default value.
    ``nodata`` pixels become black and are excluded from percentiles; None uses the file's own nodata value.
    """

    bands: tuple[int, ...] = ()
    percentiles: tuple[float, float] = PERCENTILES
    value_range: tuple[float, float] | None = None
    nodata: float | None = None

    def __post_init__(self) -> None:
        if len(self.bands) not in (0, 1, 3) or any(b < 1 for b in self.bands):
            raise ValueError(f"bands: expected none, one or three numbers from 1, found {self.bands}")
        if not _is_range(self.percentiles, 0, 100):
            raise ValueError(f"percentiles: expected 0 <= low < high <= 100, found {self.percentiles}")
        if self.value_range is not None and not _is_range(self.value_range, -LARGEST, LARGEST):
            raise ValueError(f"value_range: expected low < high, found {self.value_range}")


def _is_range(values: tuple[float, ...], low: float, high: float) -> bool:
    """Whether values are two numbers in ascending order within bounds."""
    return len(values) == 2 and low <= values[0] < values[1] <= high


def to_rgb(bands: np.ndarray, settings: PixelSettings, nodata: float | None = None) -> np.ndarray:
    """Convert bands [rows, columns, n] of any numeric dtype to RGB, uint8 [rows, columns, 3].

    ``nodata`` is the file's own nodata value, used if the settings have none. NaN and infinity are invalid; complex
    values are replaced by their magnitude. A pixel without a valid value in any selected band is black.

    Raises:
        DataError: The settings select a band that the image does not have.
    """
    num_bands = bands.shape[2]
    chosen = settings.bands or ((1, 2, 3) if num_bands >= 3 else (1,))
    if max(chosen) > num_bands:
        raise DataError(f"pixels.bands: expected bands among the image's 1 to {num_bands}, found {max(chosen)}")
    in_order = chosen == tuple(range(1, len(chosen) + 1))
    selected = bands[..., : len(chosen)] if in_order else bands[..., [b - 1 for b in chosen]]
    if selected.dtype == np.bool_:
        selected = selected * np.uint8(255)
    if np.iscomplexobj(selected):
        selected = np.abs(selected)
    valid = _valid(selected, nodata if settings.nodata is None else settings.nodata)
    if selected.dtype == np.uint8 and settings.value_range is None and settings.percentiles == PERCENTILES:
        rgb = selected if valid is None else selected * valid.any(axis=2, keepdims=True)
    else:
        rgb = np.zeros(selected.shape, np.uint8)
        for i in range(len(chosen)):
            _stretch(selected[..., i], None if valid is None else valid[..., i], settings, rgb[..., i])
    return rgb if len(chosen) == 3 else np.repeat(rgb, 3, axis=2)


def _valid(values: np.ndarray, nodata: float | None) -> np.ndarray | None:
    """Mask of finite values that are not nodata; None if all values are valid."""
    valid = np.isfinite(values) if values.dtype.kind == "f" else None
    if nodata is not None:
        # A nodata value outside the range of the dtype, as in old files, matches no pixel.
        with np.errstate(over="ignore"):
            is_data = values != nodata
        valid = is_data if valid is None else valid & is_data
    return None if valid is None or valid.all() else valid


def _stretch(band: np.ndarray, valid: np.ndarray | None, settings: PixelSettings, out: np.ndarray) -> None:
    """Stretch one band to 0..255 into the zeros of ``out``, uint8; invalid pixels stay 0."""
    values = band if valid is None else band[valid]
    if not values.size:
        return
    dtype = np.promote_types(band.dtype, np.float32)
    # Values near the limits of the dtype overflow, to infinity or from there to NaN.
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = settings.value_range or map(
            float, np.percentile(values.astype(dtype), settings.percentiles, overwrite_input=True)
        )
        if not low < high:
            # Nearly constant band: stretch the full range so that the few other values stay visible.
            low, high = float(values.min()), float(values.max())
        rows = max(1, BLOCK_VALUES // band.shape[1])
        for block in (slice(start, start + rows) for start in range(0, len(band), rows)):
            scaled = band[block].astype(dtype)
            scaled -= low
            if low < high:
                scaled /= high - low
            scaled *= 255
            levels = np.rint(np.fmin(np.fmax(scaled, 0), 255))
            out[block] = levels if valid is None else np.where(valid[block], levels, 0)
