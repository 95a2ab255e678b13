"""Reading of TIFF files as arrays of bands, with any data type, number of bands and layout.

tifffile decodes with the package imagecodecs. If it fails, Pillow's libtiff is used, provided that a Pillow mode stores
the values without loss.
"""

from __future__ import annotations

import logging
import lzma
import math
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

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
"""Exceptions that malformed or unusual content can cause in tifffile and Pillow."""
_GDAL_NODATA = 42113
_ORIENTATION = 274
TiffImage = tifffile.TiffPage | tifffile.TiffPageSeries
_BAND_PHOTOMETRICS = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
# tifffile also raises for the errors that it logs, or can read the file despite them.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Header:
    """Size in pixels as stored, and the orientation tag (1 to 8; 1 is upright)."""

    width: int
    height: int
    orientation: int = 1


@dataclass(frozen=True)
class Raster:
    """Bands of a file, [rows, columns, n], and its nodata value, if any."""

    values: np.ndarray
    nodata: float | None


def is_tiff(file: BinaryIO) -> bool:
    """Whether an open file begins with the signature of a TIFF; rewinds it."""
    file.seek(0)
    signature = file.read(4)
    file.seek(0)
    return signature in SIGNATURES


def read_header(file: BinaryIO) -> Header:
    """Read the size and orientation of a TIFF.

    Raises:
        UNREADABLE: The file is broken.
    """
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        image, band_axis = _select_image(tiff, _first_page(tiff))
        rows, columns = (n for axis, n in enumerate(image.shape) if axis != band_axis)
        return Header(columns, rows, int(_first_page(tiff).tags.valueof(_ORIENTATION, 1)))


def read_raster(file: BinaryIO) -> Raster | None:
    """Read the bands of the first image of a TIFF; None for 8-bit palette, CMYK or YCbCr images.

    Pages that tifffile wrote as one three-dimensional array are one image. Overviews and masks are ignored.

    Raises:
        DataError: The decoded bands exceed `MAX_BYTES` (4 GiB).
        UNREADABLE: The file is broken.
    """
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = _first_page(tiff)
        if page.photometric not in _BAND_PHOTOMETRICS and page.bitspersample <= 8:
            return None
        if page.dtype is None:
            raise ValueError(f"unsupported TIFF sample format {page.sampleformat} with {page.bitspersample} bits")
        image, band_axis = _select_image(tiff, page)
        size = image.size * page.dtype.itemsize
        if size > MAX_BYTES:
            raise DataError(f"expected bands of at most {MAX_BYTES / 2**30:.0f} GiB, found {size / 2**30:.1f} GiB")
        if max(page.databytecounts, default=0) > 2 * math.prod(page.chunks) * page.dtype.itemsize + 1024:
            # Decompression bomb: the chunk could decompress to far more than its pixels, and no decoder limits it.
            raise ValueError(f"{max(page.databytecounts):,} compressed bytes in a chunk of {page.chunks} values")
        try:
            values = image.asarray(maxworkers=1)
        except UNREADABLE as error:
            values, band_axis = _decode_with_pillow(file, image, error), 2
        return Raster(values[..., None] if values.ndim == 2 else np.moveaxis(values, band_axis, 2), _nodata(page))


def _first_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    if not len(tiff.pages):
        raise ValueError("no image in the file")
    return tiff.pages.first


def _select_image(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> tuple[TiffImage, int]:
    """The page or page series of the image, and its band axis (2 for a two-dimensional image)."""
    if "S" in page.axes and page.ndim == 3:
        return page, page.axes.index("S")
    if tiff.is_shaped and len(tiff.series[0].shape) == 3:
        # tifffile stores the shape of an array but not its axes; assume that the band axis is the shorter one.
        shape = tiff.series[0].shape
        return tiff.series[0], 0 if shape[0] <= shape[2] else 2
    if page.ndim != 2:
        raise ValueError(f"expected an image of rows, columns and bands, found shape {page.shape}")
    return page, 2


def _decode_with_pillow(file: BinaryIO, page: TiffImage, error: Exception) -> np.ndarray:
    """Values, bands last, of a page that Pillow decodes without loss though tifffile cannot; else raises ``error``."""
    if isinstance(page, tifffile.TiffPage) and page.dtype is not None:
        file.seek(0)
        with suppress(*UNREADABLE), Image.open(file, formats=["TIFF"]) as image:
            values = np.asarray(image)
            bands = 1 if values.ndim == 2 else values.shape[2]
            if bands == page.samplesperpixel and values.dtype.itemsize >= page.dtype.itemsize:
                return values
    raise error


def _nodata(page: tifffile.TiffPage) -> float | None:
    """GDAL's nodata value; None if absent or not a number, such as ``1.#QNAN`` of old writers."""
    try:
        return float(page.tags.valueof(_GDAL_NODATA))
    except (TypeError, ValueError):
        return None
