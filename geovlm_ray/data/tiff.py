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
from typing import Any, BinaryIO

import numpy as np
import tifffile
from PIL import Image

from geovlm_ray.data.image_limits import MIN_BYTES_PER_PIXEL, TIFF_SIGNATURES, Header
from geovlm_ray.data.tiff_checks import MAX_CHUNKS, check_chunks, check_compression, check_directories

READ_BYTES = 2**24
"""Compressed bytes that are in memory at once."""
_BUILT_IN = (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
_PACKED = (struct.error, zlib.error, lzma.LZMAError)
UNREADABLE = (
    *(*_BUILT_IN, RuntimeError, AssertionError, ImportError, MemoryError),
    *(*_PACKED, tifffile.TiffFileError),
)
"""Exceptions that malformed or unusual content can cause in tifffile and Pillow."""
_GDAL_NODATA = 42113
_ORIENTATION = 274
_BAND_PHOTOMETRICS = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
# Of these formats, tifffile would follow further structures when it opens a file.
_OTHER_FORMATS: dict[str, Any] = dict.fromkeys(("is_lsm", "is_ndpi", "is_scanimage"), False)
# tifffile also raises for the errors that it logs, or can read the file despite them.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


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
    return signature in TIFF_SIGNATURES


def read_header(file: BinaryIO) -> Header:
    """Read the size and orientation of a TIFF.

    Raises:
        DataError: The decoded bands are larger than `MAX_DECODED_BYTES`.
        UNREADABLE: The file is broken.
    """
    with _open(file) as tiff:
        return _header(tiff)


def read_raster(file: BinaryIO) -> Raster | None:
    """Read the bands of the first image of a TIFF; None for 8-bit palette, CMYK or YCbCr images.

    Pages that tifffile wrote as one three-dimensional array are one image. Overviews and masks are ignored.

    Raises:
        DataError: The decoded bands are larger than `MAX_DECODED_BYTES`.
        UNREADABLE: The file is broken.
    """
    with _open(file) as tiff:
        _header(tiff)
        page = _first_page(tiff)
        if page.photometric not in _BAND_PHOTOMETRICS and page.bitspersample <= 8:
            return None
        if page.dtype is None:
            raise ValueError(f"unsupported TIFF sample format {page.sampleformat} with {page.bitspersample} bits")
        shape, band_axis = _shape(page)
        if len(shape) == 3 and page.ndim == 2:
            values = _read_pages(tiff, file, shape)
        else:
            try:
                values = _decode(page, file)
            except UNREADABLE as error:
                values, band_axis = _decode_with_pillow(file, page, error), 2
        return Raster(values[..., None] if values.ndim == 2 else np.moveaxis(values, band_axis, 2), _nodata(page))


def _open(file: BinaryIO) -> tifffile.TiffFile:
    check_directories(file)
    file.seek(0)
    return tifffile.TiffFile(file, **_OTHER_FORMATS)


def _first_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    try:
        return tiff.pages.first
    except IndexError:
        raise ValueError("no image in the file") from None


def _header(tiff: tifffile.TiffFile) -> Header:
    page = _first_page(tiff)
    shape, band_axis = _shape(page)
    rows, columns = (n for axis, n in enumerate(shape) if axis != band_axis)
    itemsize = page.dtype.itemsize if page.dtype else 1
    size = max(math.prod(shape) * itemsize, rows * columns * MIN_BYTES_PER_PIXEL)
    header = Header(columns, rows, size, int(page.tags.valueof(_ORIENTATION, 1))).check()
    check_chunks(page, itemsize)
    return header


def _shape(page: tifffile.TiffPage) -> tuple[tuple[int, ...], int]:
    """Shape of the image that begins with a page, and its band axis (2 for a two-dimensional image)."""
    if "S" in page.axes and page.ndim == 3:
        return page.shape, page.axes.index("S")
    if page.ndim != 2:
        raise ValueError(f"expected an image of rows, columns and bands, found shape {page.shape}")
    if page.shaped_description is not None:
        shape = tuple(map(int, tifffile.tifffile.shaped_description_metadata(page.shaped_description)["shape"]))
        if len(shape) == 3 and shape[1:] == page.shape and 0 < shape[0] <= MAX_CHUNKS:
            # tifffile stores the shape of an array but not its axes; assume that the band axis is the shorter one.
            return shape, 0 if shape[0] <= shape[2] else 2
    return page.shape, 2


def _read_pages(tiff: tifffile.TiffFile, file: BinaryIO, shape: tuple[int, ...]) -> np.ndarray:
    """Values of an array, of ``shape``, of which each page is one part."""
    first = _first_page(tiff)
    if (pages := check_directories(file, shape[0])) < shape[0]:
        raise ValueError(f"{pages:,} pages of {shape[0]:,}")
    values = np.empty(shape, first.dtype)
    chunks = 0
    for k in range(shape[0]):
        page = tiff.pages.get(k)
        if not isinstance(page, tifffile.TiffPage) or (page.shape, page.dtype) != (first.shape, first.dtype):
            raise ValueError("pages of different shapes or types")
        chunks += len(page.dataoffsets)
        if chunks > MAX_CHUNKS:
            raise ValueError(f"a TIFF of more than {MAX_CHUNKS:,} strips or tiles")
        check_chunks(page, values.itemsize)
        values[k] = _decode(page, file)
    return values


def _decode(page: tifffile.TiffPage, file: BinaryIO) -> np.ndarray:
    check_compression(page, file)
    return page.asarray(maxworkers=1, buffersize=READ_BYTES)


def _decode_with_pillow(file: BinaryIO, page: tifffile.TiffPage, error: Exception) -> np.ndarray:
    """Values, bands last, of a page that Pillow decodes without loss though tifffile cannot; else raises ``error``."""
    if page.dtype is not None:
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
