"""TIFF files as arrays of bands: any number type, number of bands and layout that tifffile or Pillow decode.

tifffile decodes them with the package imagecodecs; where it cannot, Pillow's libtiff steps in if Pillow has a mode that
holds the values as they are.
"""

from __future__ import annotations

import logging
import lzma
import math
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from geovlm_ray.core.errors import DataError

SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
MAX_BYTES = 2**32
_BUILT_IN = (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
_PACKED = (struct.error, zlib.error, lzma.LZMAError)
UNREADABLE = (
    *(*_BUILT_IN, RuntimeError, AssertionError, ImportError, MemoryError),
    *(*_PACKED, tifffile.TiffFileError),
)
"""What hostile or unusual content makes tifffile and Pillow raise."""
_GDAL_NODATA = 42113
_ORIENTATION = 274
Stored = tifffile.TiffPage | tifffile.TiffPageSeries
_COUNTED = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
# What it would log of a broken file it raises as well, or reads past.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Header:
    """What stands before the pixels: their extent as stored, and the orientation tag (1 to 8; 1 is upright)."""

    width: int
    height: int
    orientation: int = 1


@dataclass(frozen=True)
class Raster:
    """The bands of a file, [rows, columns, n], and the value that the file marks as nodata."""

    values: np.ndarray
    nodata: float | None


def read_header(path: Path) -> Header:
    """Extent and orientation of a TIFF.

    Raises:
        UNREADABLE: it is broken.
    """
    with tifffile.TiffFile(path) as tiff:
        stored, bands = _stored(tiff, _first(tiff))
        rows, columns = (n for axis, n in enumerate(stored.shape) if axis != bands)
        return Header(columns, rows, int(_first(tiff).tags.valueof(_ORIENTATION, 1)))


def read_raster(path: Path) -> Raster | None:
    """The bands of a TIFF's first image; None where colours of another kind (palette, CMYK, YCbCr) make it a picture.

    Pages that tifffile wrote as one array of three axes are one image. Smaller copies and masks are not looked at.

    Raises:
        DataError: the decoded bands exceed 4 GiB.
        UNREADABLE: it is broken.
    """
    with tifffile.TiffFile(path) as tiff:
        page = _first(tiff)
        if page.photometric not in _COUNTED and page.bitspersample <= 8:
            return None
        if page.dtype is None:
            raise ValueError(f"numbers of {page.bitspersample} bits of TIFF's sample format {page.sampleformat}")
        stored, bands = _stored(tiff, page)
        size = stored.size * page.dtype.itemsize
        if size > MAX_BYTES:
            raise DataError(f"its bands are {size / 2**30:.1f} GiB, at most {MAX_BYTES / 2**30:.0f} are read")
        if max(page.databytecounts, default=0) > 2 * math.prod(page.chunks) * page.dtype.itemsize + 1024:
            # What is compressed would come out far larger than its pixels, and nothing else would stop it.
            raise ValueError(f"{max(page.databytecounts):,} bytes in a piece of {page.chunks} values")
        try:
            values = stored.asarray(maxworkers=1)
        except UNREADABLE as error:
            values, bands = _decoded_by_pillow(path, stored, error), 2
        return Raster(values[..., None] if values.ndim == 2 else np.moveaxis(values, bands, 2), _nodata(page))


def _first(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    if not len(tiff.pages):
        raise ValueError("no image in it")
    return tiff.pages.first


def _stored(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> tuple[Stored, int]:
    """The page or pages of the image, and which axis of their array counts the bands; 2 if it has but two."""
    if "S" in page.axes and page.ndim == 3:
        return page, page.axes.index("S")
    if tiff.is_shaped and len(tiff.series[0].shape) == 3:
        # Written by tifffile from an array, and in no layout that says which axis is which: bands are the fewest.
        shape = tiff.series[0].shape
        return tiff.series[0], 0 if shape[0] <= shape[2] else 2
    if page.ndim != 2:
        raise ValueError(f"an image of shape {page.shape}, expected rows, columns and bands")
    return page, 2


def _decoded_by_pillow(path: Path, stored: Stored, error: Exception) -> np.ndarray:
    """The values of a page that tifffile cannot decode, bands last, where Pillow has a mode that holds them.

    Raises:
        Exception: the given error, where nothing helps.
    """
    if isinstance(stored, tifffile.TiffPage) and stored.dtype is not None:
        with suppress(*UNREADABLE), Image.open(path, formats=["TIFF"]) as image:
            values = np.asarray(image)
            bands = 1 if values.ndim == 2 else values.shape[2]
            if bands == stored.samplesperpixel and values.dtype.itemsize >= stored.dtype.itemsize:
                return values
    raise error


def _nodata(page: tifffile.TiffPage) -> float | None:
    """GDAL's nodata value; what is no number, such as old writers' ``1.#QNAN``, marks nothing that is not NaN."""
    try:
        return float(page.tags.valueof(_GDAL_NODATA))
    except (TypeError, ValueError):
        return None
