"""Checks of the structure of a TIFF, made before a decoder follows it.

A directory is a list of tags; a tag has a value in it or elsewhere in the file. The pixels are stored in chunks: strips
of rows, or tiles.
"""

from __future__ import annotations

import math
import os
import struct
from collections import Counter
from io import BytesIO
from typing import BinaryIO

import tifffile
from PIL import Image
from tifffile import COMPRESSION

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.image_limits import MAX_DECODED_BYTES, check_opened

MAX_TAGS = 4096
MAX_CHUNKS = 2**17
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_CHUNK_TAGS = (273, 279, 324, 325)
_STRUCTURE_TAGS = (256, 257, 258, 259, 277, 278, 322, 323, *_CHUNK_TAGS)
# Their decoders stop at the size of the chunk.
_BOUNDED = (
    *(COMPRESSION.NONE, COMPRESSION.LZW, COMPRESSION.DEFLATE, COMPRESSION.ADOBE_DEFLATE, COMPRESSION.PACKBITS),
    *(COMPRESSION.LZMA, COMPRESSION.ZSTD),
)
# Their chunks are image files with a size of their own.
_IMAGE_FILES: dict[int, str] = {COMPRESSION.JPEG: "JPEG", COMPRESSION.WEBP: "WEBP", COMPRESSION.JPEG2000: "JPEG2000"}


def check_directories(file: BinaryIO, limit: int = 1) -> int:
    """Check the directories of an open TIFF, at most ``limit``; return their number.

    Raises:
        ValueError: A directory has too many or duplicate tags, its values together are larger than the file, or it
            names too many chunks.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(16)
    order = "<" if head.startswith(b"II") else ">"
    big = b"+" in head[2:4]
    count_format, tag_format, offset_format = (order + f for f in (("Q", "HHQ8x", "Q") if big else ("H", "HHI4x", "I")))
    (offset,) = struct.unpack_from(offset_format, head, 8 if big else 4)
    number = 0
    while offset and number < limit:
        file.seek(offset)
        (count,) = struct.unpack(count_format, file.read(struct.calcsize(count_format)))
        if count > MAX_TAGS:
            raise ValueError(f"a TIFF directory of {count:,} tags, more than {MAX_TAGS:,}")
        content = file.read(count * struct.calcsize(tag_format))
        _check_tags(list(struct.iter_unpack(tag_format, content)), size)
        (offset,) = struct.unpack(offset_format, file.read(struct.calcsize(offset_format)))
        number += 1
    return number


def _check_tags(tags: list[tuple[int, int, int]], file_size: int) -> None:
    """Check the tags (code, type, number of values) of a directory."""
    occurrences = Counter(code for code, _, _ in tags if code in _STRUCTURE_TAGS)
    if occurrences and max(occurrences.values()) > 1:
        raise ValueError(f"TIFF tag {occurrences.most_common(1)[0][0]} twice")
    chunks = max((count for code, _, count in tags if code in _CHUNK_TAGS), default=0)
    if chunks > MAX_CHUNKS:
        raise ValueError(f"a TIFF of {chunks:,} strips or tiles, more than {MAX_CHUNKS:,}")
    value_bytes = sum(_TYPE_BYTES.get(kind, 0) * count for _, kind, count in tags)
    if value_bytes > file_size:
        raise ValueError(f"TIFF tags of {value_bytes:,} bytes in a file of {file_size:,} bytes")


def check_chunks(page: tifffile.TiffPage, itemsize: int) -> None:
    """Check the chunks of a page whose samples are decoded to ``itemsize`` bytes each.

    Raises:
        ValueError: The chunks are much larger than the image, overlap, are missing, empty or
            hold more bytes than their share of the image.
    """
    chunks, chunk_bytes, page_bytes = math.prod(page.chunked), math.prod(page.chunks) * itemsize, page.size * itemsize
    if chunks * chunk_bytes > max(4 * page_bytes, MAX_DECODED_BYTES // 8):
        raise ValueError(f"TIFF tiles of {chunks * chunk_bytes:,} bytes for an image of {page_bytes:,} bytes")
    if page.is_contiguous:
        return
    found = min(len(page.dataoffsets), len(page.databytecounts))
    if found < chunks:
        raise ValueError(f"{found:,} strips or tiles of {chunks:,}")
    stored, file_size = sum(page.databytecounts), page.parent.filehandle.size
    if stored > file_size:
        raise ValueError(f"TIFF strips or tiles of {stored:,} bytes in a file of {file_size:,} bytes")
    if not stored:
        raise ValueError("a TIFF without pixels")
    if max(page.databytecounts) > 2 * chunk_bytes + 1024:
        # More than any compression makes of incompressible values.
        raise ValueError(f"{max(page.databytecounts):,} compressed bytes in a TIFF chunk of {chunk_bytes:,} bytes")


def check_compression(page: tifffile.TiffPage, file: BinaryIO) -> None:
    """Check that tifffile decodes no chunk of a page to more than the size of the chunk.

    Raises:
        DataError: A chunk would be larger.
        ValueError: The decoder of the compression has no limit.
        OSError: A chunk is not an image of the compression's type.
    """
    if page.compression in _BOUNDED:
        return
    if page.compression not in (*_IMAGE_FILES, COMPRESSION.LERC):
        raise ValueError(f"unsupported TIFF compression {page.compression}")
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if count:
            file.seek(offset)
            chunk = file.read(count)
            lerc = page.compression == COMPRESSION.LERC
            shape = _lerc_shape(chunk) if lerc else _image_shape(chunk, _IMAGE_FILES[page.compression])
            if math.prod(shape) > math.prod(page.chunks):
                expected, found = (" x ".join(map(str, s)) for s in (page.chunks, shape))
                raise DataError(f"expected at most {expected} values in a TIFF chunk, found {found}")


def _image_shape(chunk: bytes, kind: str) -> tuple[int, int, int]:
    """Rows, columns and bands of an image file."""
    with Image.open(BytesIO(chunk), formats=[kind]) as image:
        check_opened(image, BytesIO(chunk))
        return image.height, image.width, len(image.getbands())


def _lerc_shape(chunk: bytes) -> tuple[int, int, int]:
    """Rows, columns and depth of a chunk that is one Lerc2 blob, from its header."""
    version, *fields = struct.unpack_from("<8i", chunk, 6)
    if not chunk.startswith(b"Lerc2 ") or version < 4:
        raise ValueError("a LERC chunk of an unsupported version")
    _checksum, rows, columns, depth, _valid, _block, blob_bytes = fields
    if min(rows, columns, depth) < 1 or blob_bytes != len(chunk):
        raise DataError(
            f"expected one LERC blob in a TIFF chunk, found {len(chunk):,} bytes with a blob of {blob_bytes:,} bytes"
        )
    return rows, columns, depth
