"""Limits on the memory and the time that decoding an image takes, checked before it is decoded."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from PIL import ImageFile

from geovlm_ray.core.errors import DataError

MAX_DECODED_BYTES = 2**29
"""Maximum size of a decoded image: 134 million RGB pixels. Loading such an image takes at most 2 GB."""
MIN_BYTES_PER_PIXEL = 4
"""Pillow stores RGB in four bytes."""
MAX_SCANS = 32
"""Of a progressive JPEG. Encoders write about ten; every scan takes as long as a whole baseline image."""
MAX_TILES = 2**14
"""Of a JPEG 2000 image; OpenJPEG reserves 13 kB for each."""
PPM_HEADER_BYTES = 1024
TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_MEMORY_HUNGRY = ("WEBP", "AVIF", "JPEG2000")
_SIXTEEN_BIT_COLOUR = ("RGB;16B", "RGBA;16B")
_START_OF_SCAN, _START_OF_CODESTREAM = b"\xff\xda", b"\xff\x4f\xff\x51"
_JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"


@dataclass(frozen=True)
class Header:
    """Size in pixels as stored, size in bytes when decoded, and the orientation tag (1 to 8; 1 is upright)."""

    width: int
    height: int
    decoded_bytes: int
    orientation: int = 1

    def check(self, limit: int = MAX_DECODED_BYTES) -> Header:
        """Return this header.

        Raises:
            DataError: The decoded image is larger than ``limit`` bytes.
        """
        if self.decoded_bytes > limit:
            raise DataError(
                f"expected at most {limit / 2**20:,.0f} MiB when decoded, found {self.decoded_bytes / 2**20:,.0f} MiB "
                f"({self.width} x {self.height} pixels)"
            )
        return self


def decoded_bytes(image: ImageFile.ImageFile) -> int:
    """Memory in bytes that counts against the limit, of an image that Pillow opened.

    Decoders of WebP, AVIF and JPEG 2000 need at least twice the memory of the pixels.
    """
    deep = bool(image.tile) and image.tile[0].args in _SIXTEEN_BIT_COLOUR
    factor = 2 if deep or image.format in _MEMORY_HUNGRY else 1
    return image.width * image.height * MIN_BYTES_PER_PIXEL * factor


def check_before_opening(file: BinaryIO) -> None:
    """Refuse a large file, because decoders of some formats read it whole, and a PPM whose header is long, because
    Pillow reads it byte by byte; rewinds the file.

    Raises:
        ValueError: The header is longer than `PPM_HEADER_BYTES`, or the file, which is no TIFF, than
            `MAX_DECODED_BYTES`.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(PPM_HEADER_BYTES)
    file.seek(0)
    if size > MAX_DECODED_BYTES and not head.startswith(TIFF_SIGNATURES):
        raise ValueError(f"a file of {size / 2**20:,.0f} MiB, more than {MAX_DECODED_BYTES / 2**20:,.0f} MiB")
    is_ppm = re.match(rb"P[0-6fy]", head)
    if is_ppm and len(re.sub(rb"#[^\r\n]*", b"", head).split()) < (3 if head[1:2] in b"14" else 4):
        raise ValueError(f"a PPM header of more than {PPM_HEADER_BYTES} bytes")


def check_opened(image: ImageFile.ImageFile, file: BinaryIO) -> None:
    """Refuse content that takes a decoder long, or much memory, though the image is small.

    Raises:
        ValueError: ``file``, which Pillow opened as ``image``, is a plain-text PPM, a JPEG with too many scans or a
            JPEG 2000 image with too many tiles.
    """
    if image.format == "PPM" and image.tile and image.tile[0].codec_name == "ppm_plain":
        raise ValueError("a PPM in plain text; only binary ones are supported")
    if image.info.get("progressive"):
        file.seek(0)
        scans = file.read().count(_START_OF_SCAN)
        if scans > MAX_SCANS:
            raise ValueError(f"a JPEG of {scans:,} scans, more than {MAX_SCANS}")
    if image.format == "JPEG2000":
        tiles = _jpeg2000_tiles(file)
        if tiles > MAX_TILES:
            raise ValueError(f"a JPEG 2000 image of {tiles:,} tiles, more than {MAX_TILES:,}")


def _jpeg2000_tiles(file: BinaryIO) -> int:
    """Number of tiles according to the SIZ marker, with which a codestream begins."""
    file.seek(0)
    if file.read(len(_JP2_SIGNATURE)) == _JP2_SIGNATURE:
        _find_codestream(file)
    else:
        file.seek(0)
    marker = file.read(40)
    if marker[:4] != _START_OF_CODESTREAM:
        raise ValueError("a JPEG 2000 image without a codestream")
    right, bottom, _, _, width, height, left, top = struct.unpack(">8I", marker[8:40])
    return -(-(right - left) // width) * -(-(bottom - top) // height)


def _find_codestream(file: BinaryIO) -> None:
    """Move to the content of the codestream box, from the end of another box."""
    while True:
        length, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
            header = 16
        if kind == b"jp2c":
            return
        if length < header:
            raise ValueError("a JPEG 2000 image without a codestream")
        file.seek(length - header, 1)
