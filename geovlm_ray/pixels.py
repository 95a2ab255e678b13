"""How the bands of a remote-sensing image become an RGB picture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PixelSettings:
    """A dataset's choice of bands and stretch; images of 8-bit RGB are shown as they are under the defaults.

    ``bands`` (counted from 1, as in GDAL) are one band, shown grey, or three, shown as red, green and blue; empty:
    the first three, or the only one. Values that are not 8-bit are mapped to 0..255 from ``value_range`` where it is
    given, else from these ``percentiles`` of each band's valid values. ``nodata`` pixels become black and count in no
    percentile; None takes what the file itself says.
    """

    bands: tuple[int, ...] = ()
    percentiles: tuple[float, float] = (2.0, 98.0)
    value_range: tuple[float, float] | None = None
    nodata: float | None = None

    def __post_init__(self) -> None:
        if len(self.bands) not in (0, 1, 3) or any(b < 1 for b in self.bands):
            raise ValueError(f"bands: expected none, one or three numbers from 1, found {self.bands}")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"percentiles: expected 0 <= low < high <= 100, found {self.percentiles}")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"value_range: expected low < high, found {self.value_range}")
