"""How the bands of a remote-sensing image become an RGB picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geovlm_ray.core.errors import DataError

PERCENTILES = (2.0, 98.0)


@dataclass(frozen=True)
class PixelSettings:
    """A dataset's choice of bands and stretch; images of 8-bit RGB are shown as they are under the defaults.

    ``bands`` (counted from 1, as in GDAL) are one band, shown grey, or three, shown as red, green and blue; empty:
    the first three, or the only one. Values that are not 8-bit are mapped to 0..255 from ``value_range`` where it is
    given, else from these ``percentiles`` of each band's valid values; 8-bit ones where either is not the default.
    ``nodata`` pixels become black and count in no percentile; None takes what the file itself says.
    """

    bands: tuple[int, ...] = ()
    percentiles: tuple[float, float] = PERCENTILES
    value_range: tuple[float, float] | None = None
    nodata: float | None = None

    def __post_init__(self) -> None:
        if len(self.bands) not in (0, 1, 3) or any(b < 1 for b in self.bands):
            raise ValueError(f"bands: expected none, one or three numbers from 1, found {self.bands}")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"percentiles: expected 0 <= low < high <= 100, found {self.percentiles}")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"value_range: expected low < high, found {self.value_range}")


def to_rgb(bands: np.ndarray, settings: PixelSettings, nodata: float | None = None) -> np.ndarray:
    """An image's bands [rows, columns, n] of any number type as a picture, uint8 [rows, columns, 3].

    ``nodata`` is what the file itself marks as such. NaN and infinity are never valid, and of complex values the
    magnitude is shown. A pixel without a valid value in any shown band is black.

    Raises:
        DataError: the settings ask for a band that the image lacks.
    """
    count = bands.shape[2]
    chosen = settings.bands or ((1, 2, 3) if count >= 3 else (1,))
    if max(chosen) > count:
        raise DataError(f"pixels.bands: expected bands among the image's 1 to {count}, found {max(chosen)}")
    shown = bands if chosen == tuple(range(1, count + 1)) else bands[..., [b - 1 for b in chosen]]
    if shown.dtype == np.bool_:
        shown = shown * np.uint8(255)
    if np.iscomplexobj(shown):
        shown = np.abs(shown)
    valid = _valid(shown, nodata if settings.nodata is None else settings.nodata)
    if shown.dtype == np.uint8 and settings.value_range is None and settings.percentiles == PERCENTILES:
        rgb = shown if valid is None else shown * valid.any(axis=2, keepdims=True)
    else:
        masks = [None if valid is None else valid[..., i] for i in range(len(chosen))]
        planes = [_stretched(shown[..., i], mask, settings) for i, mask in enumerate(masks)]
        rgb = np.stack(planes, axis=2)
    return rgb if len(chosen) == 3 else np.repeat(rgb, 3, axis=2)


def _valid(values: np.ndarray, nodata: float | None) -> np.ndarray | None:
    """Which values are finite and not nodata; None where all are."""
    valid = np.isfinite(values) if values.dtype.kind == "f" else None
    if nodata is not None:
        # A nodata value beyond the type's range, as old files have it, equals none of its values.
        with np.errstate(over="ignore"):
            data = values != nodata
        valid = data if valid is None else valid & data
    return None if valid is None or valid.all() else valid


def _stretched(band: np.ndarray, valid: np.ndarray | None, settings: PixelSettings) -> np.ndarray:
    """One band mapped to 0..255 uint8; 0 where it is not valid."""
    band = band.astype(np.promote_types(band.dtype, np.float32), copy=False)
    values = band if valid is None else band[valid]
    if not values.size:
        return np.zeros(band.shape, np.uint8)
    # Values near the ends of their type overflow, to infinity or from there to NaN.
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = map(float, settings.value_range or np.percentile(values, settings.percentiles))
        if not low < high:
            # Nearly constant: the few other values are what there is to see.
            low, high = float(values.min()), float(values.max())
        scaled = band - low
        if low < high:
            scaled /= high - low
        scaled *= 255
    rounded = np.rint(np.fmin(np.fmax(scaled, 0), 255))
    return (rounded if valid is None else np.where(valid, rounded, 0)).astype(np.uint8)
