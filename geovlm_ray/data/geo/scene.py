"""A raster scene of any size, of which only windows are read; coordinates by its affine transform and CRS (GDAL)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Interleaving
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform
from rasterio.windows import Window as RasterWindow

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.image_limits import MAX_DECODED_BYTES
from geovlm_ray.data.images import resolve

SIGNATURES = {
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "GTiff"),
    **dict.fromkeys((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), "JP2OpenJPEG"),
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"RIFF": "WEBP",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"EHFA_HEADER_TAG": "HFA",
}
"""GDAL drivers by the first bytes of a file: of formats that hold their own pixels.

Others, such as VRT, may refer to files and addresses elsewhere.
"""
BESIDE = (".ovr", ".msk")
"""Endings of rasters that GDAL reads with the one whose name they follow."""
CACHE_BYTES = 2**28
"""Memory of GDAL's block cache."""
WGS84 = CRS.from_epsg(4326)
METRES_PER_DEGREE = 111_195.0
"""Metres of a degree on a sphere of the mean radius of the earth."""
MAX_DISTORTION = 0.02
"""Relative difference of a length in a projected CRS from that on the ground, above which the globe is measured."""
PREVIEW_SIDE = 1024
"""Longer side of the reduced scene from which the contrast stretch is computed."""

# Scene.georeference says so.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


def near(longitudes: np.ndarray, reference: float | np.ndarray) -> np.ndarray:
    """Longitudes within 180 degrees of a reference, so that their differences are right across the antimeridian."""
    return np.asarray((longitudes - reference + 180) % 360 - 180 + reference)


@dataclass(frozen=True)
class Window:
    """A part of a scene in pixels: ``left``, ``top``, ``width`` and ``height``."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """Column after the last one."""
        return self.left + self.width

    @property
    def bottom(self) -> int:
        """Row after the last one."""
        return self.top + self.height


@dataclass(frozen=True)
class Georeference:
    """Where pixels lie: ``transform`` maps their corners (column, row) to coordinates in ``crs``."""

    crs: CRS
    transform: Affine

    def coordinates(self, pixels: np.ndarray) -> np.ndarray:
        """Coordinates [n, 2] of pixel corners (column, row) [n, 2]."""
        a, b, c, d, e, f = list(self.transform)[:6]
        return pixels @ np.array([[a, d], [b, e]]) + np.array([c, f])

    def pixels(self, coordinates: np.ndarray) -> np.ndarray:
        """Pixel corners (column, row) [n, 2] at coordinates [n, 2]: the inverse of `coordinates`."""
        return Georeference(self.crs, ~self.transform).coordinates(coordinates)

    def degrees(self, pixels: np.ndarray) -> np.ndarray:
        """Longitude and latitude (WGS 84) [n, 2] of pixel corners (column, row) [n, 2].

        Raises:
            DataError: the coordinates have no place on the globe.
        """
        try:
            found = np.column_stack(transform(self.crs, WGS84, *self.coordinates(pixels).T))
        except (RasterioError, CPLE_BaseError, ValueError) as error:
            raise DataError(f"expected coordinates in {self.crs}, found: {error}") from error
        if not np.isfinite(found).all():
            raise DataError(f"expected coordinates in {self.crs}, found some that are nowhere on the globe")
        return found

    def metres_per_pixel(self, width: int, height: int) -> float:
        """Ground sample distance at the centre of a scene of this size."""
        if self.is_metric(width, height):
            return self._projected_metres_per_pixel()
        return self._metres_on_the_globe(width, height)

    def is_metric(self, width: int, height: int) -> bool:
        """Whether lengths in the CRS are lengths on the ground in a scene of this size, up to `MAX_DISTORTION`.

        They are in UTM, and not in degrees or in Web Mercator.
        """
        if not self.crs.is_projected:
            return False
        try:
            ratio = self._projected_metres_per_pixel() / self._metres_on_the_globe(width, height)
        except DataError:
            return True
        return abs(ratio - 1) < MAX_DISTORTION

    def _projected_metres_per_pixel(self) -> float:
        return math.sqrt(abs(self.transform.determinant)) * float(self.crs.linear_units_factor[1])

    def _metres_on_the_globe(self, width: int, height: int) -> float:
        corners = np.array([[width, height], [width + 1, height], [width, height + 1]]) / 2
        degrees = self.degrees(corners)
        degrees[:, 0] = near(degrees[:, 0], degrees[0, 0])
        across, down = (degrees[1:] - degrees[0]) * [math.cos(math.radians(degrees[0, 1])), 1.0]
        return 2 * METRES_PER_DEGREE * math.sqrt(abs(across[0] * down[1] - across[1] * down[0]))


class Scene:
    """An open raster file; ``georeference`` is None if it has none.

    ``has_control_points`` says that it has ground control points instead, as Sentinel-1 GRD.

    Raises:
        DataError: the file cannot be read as a raster.
    """

    def __init__(self, path: str) -> None:
        self.path = resolve(path)
        for beside in (self.path.with_name(self.path.name + ending) for ending in BESIDE):
            if beside.is_file():
                _driver(beside)
        with self._errors():
            self.file = rasterio.open(self.path, driver=_driver(self.path))
        self.bands = self.file.count
        self._check_overviews()
        self._check_blocks()
        self._take_grid()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _check_overviews(self) -> None:
        """Raise DataError if the metadata name a file with overviews, which GDAL would read wherever it is."""
        named = self.file.tags(ns="OVERVIEWS")
        if named:
            self.file.close()
            raise DataError(f"{self.path}: expected overviews in the file or beside it, found metadata {named!r:.200}")

    def _check_blocks(self) -> None:
        """Raise DataError if the smallest part that can be decoded takes too much memory."""
        (rows, columns), size = self.file.block_shapes[0], np.dtype(self.file.dtypes[0]).itemsize
        bands = self.bands if self.file.interleaving == Interleaving.pixel else 1
        if rows * columns * size * bands > MAX_DECODED_BYTES:
            found = f"{rows * columns * size * bands / 2**20:,.0f} MiB ({columns} x {rows} pixels)"
            self.file.close()
            raise DataError(
                f"{self.path}: expected blocks of at most {MAX_DECODED_BYTES // 2**20} MiB, found {found}; "
                "`gdal_translate -co TILED=YES` makes a tiled file"
            )

    def _take_grid(self) -> None:
        self.width, self.height = self.file.width, self.file.height
        is_placed = self.file.crs is not None and self.file.transform != Affine.identity()
        self.georeference = Georeference(self.file.crs, self.file.transform) if is_placed else None
        self.has_control_points = not is_placed and bool(self.file.gcps[0])

    def metres(self, pixels: np.ndarray) -> np.ndarray:
        """Places of pixel corners (column, row) [n, 2] on a plane in metres, x east and y north.

        Without a CRS whose lengths are those on the ground, the plane touches the globe at the centre of the scene;
        without a georeference, metres are pixels.
        """
        where = self.georeference
        if where is None:
            return pixels * [1.0, -1.0]
        if where.is_metric(self.width, self.height):
            return where.coordinates(pixels) * where.crs.linear_units_factor[1]
        centre = where.degrees(np.array([[self.width / 2, self.height / 2]]))[0]
        scale = METRES_PER_DEGREE * np.array([math.cos(math.radians(centre[1])), 1.0])
        degrees = where.degrees(pixels)
        degrees[:, 0] = near(degrees[:, 0], centre[0])
        return (degrees - centre) * scale

    def replace(self, warped: WarpedVRT) -> None:
        """Read from a view of the file on another pixel grid from now on."""
        self.file = warped
        self._take_grid()

    def read(self, bands: tuple[int, ...], window: Window | None = None, side: int | None = None) -> np.ma.MaskedArray:
        """Bands (numbered from 1) of a window, [rows, columns, bands].

        Masked are nodata, what alpha and mask bands hide, and numbers that are not finite. Complex numbers, as of SAR,
        are read as their amplitudes.

        With ``side``, the longer side is reduced to at most this many pixels.

        Raises:
            DataError: a band does not exist, or the file is damaged.
        """
        if max(bands) > self.bands:
            raise DataError(f"{self.path}: expected bands among 1 to {self.bands}, found {max(bands)}")
        area = window or Window(0, 0, self.width, self.height)
        factor = min(1.0, side / max(area.width, area.height)) if side else 1.0
        shape = (len(bands), max(1, round(area.height * factor)), max(1, round(area.width * factor)))
        part = RasterWindow(area.left, area.top, area.width, area.height)
        with self._errors():
            values = self.file.read(list(bands), window=part, out_shape=shape, masked=True)
        if values.dtype.kind == "c":
            values = np.abs(values)
        if values.dtype.kind == "f":
            values = np.ma.masked_invalid(values, copy=False)
        return values.transpose(1, 2, 0)

    def palette(self) -> np.ndarray | None:
        """Colours [256, 3] of the values of the first band, uint8; None if they are no indices of colours."""
        if self.bands != 1 or self.file.colorinterp[0] != ColorInterp.palette:
            return None
        colours = np.zeros((256, 3), dtype=np.uint8)
        for index, colour in self.file.colormap(1).items():
            colours[index] = colour[:3]
        return colours

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
                yield
        except (RasterioError, ValueError, OSError) as error:
            raise DataError(f"{self.path}: expected a raster that GDAL reads, found: {error}") from error


def _driver(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(16)
    for signature, driver in SIGNATURES.items():
        if start.startswith(signature):
            return driver
    known = ", ".join(dict.fromkeys(SIGNATURES.values()))
    raise DataError(f"{path}: expected a raster file ({known}), found {start[:8]!r}")
