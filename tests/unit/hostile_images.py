"""Small image files that would occupy a decoder for long, or much memory, each with words of the error to expect."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

SIDE = 13_000
"""Of an image whose pixels exceed the limit, though not Pillow's."""
_FORMATS = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B"}
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1}
_PALETTE = {320: (3, [0] * 768)}
_ZEROS = zlib.compress(bytes(50_000_000), 9)

Tags = dict[int, tuple[int, Any]]


def tiff(tags: Tags, data: bytes = b"", next_directory: int = 0) -> bytes:
    """A TIFF with ``data`` at offset 8 and one directory of tags, {code: (type, values)}; raw values are bytes."""
    start = 8 + len(data)
    end = start + 2 + 12 * len(tags) + 4
    directory, values = struct.pack("<H", len(tags)), b""
    for code, (kind, content) in sorted(tags.items()):
        raw = content if isinstance(content, bytes) else struct.pack(f"<{len(content)}{_FORMATS[kind]}", *content)
        place = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", end + len(values))
        values += raw if len(raw) > 4 else b""
        directory += struct.pack("<HHI", code, kind, len(raw) // _BYTES[kind]) + place
    return b"II*\0" + struct.pack("<I", start) + data + directory + struct.pack("<I", next_directory) + values


def strips(width: int, height: int, data: bytes = b"", *, number: int = 1, compression: int = 1, **more: Any) -> bytes:
    """A TIFF of ``number`` strips that all lie at the same place."""
    tags: Tags = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [more.get("bits", 8)]),
        259: (3, [compression]),
        262: (3, [more.get("photometric", 1)]),
        273: (4, [8 if data else 0] * number),
        277: (3, [more.get("bands", 1)]),
        278: (4, [-(-height // number)]),
        279: (4, [len(data)] * number),
        339: (3, [more.get("sample_format", 1)]),
    }
    return tiff(tags | more.get("tags", {}), data)


def tile(side: int, data: bytes, compression: int, photometric: int = 1) -> bytes:
    """A TIFF of 8 x 8 pixels with one tile of ``side``."""
    tags: Tags = {256: (4, [8]), 257: (4, [8]), 258: (3, [8]), 259: (3, [compression]), 262: (3, [photometric])}
    tags |= {277: (3, [1]), 322: (4, [side]), 323: (4, [side]), 324: (4, [8]), 325: (4, [len(data)])}
    return tiff(tags | _PALETTE if photometric == 3 else tags, data)


def directories(number: int, shape: list[int]) -> bytes:
    """A TIFF of an array of ``shape`` whose directories, all but the first empty, form a circle."""
    description = {270: (2, f'{{"shape": {shape}}}\0'.encode())}
    first = strips(8, 8, bytes(64), tags=description)
    (at,) = struct.unpack_from("<I", first, 4)
    (count,) = struct.unpack_from("<H", first, at)
    content = bytearray(first)
    struct.pack_into("<I", content, at + 2 + 12 * count, len(first))
    for i in range(number):
        content += struct.pack("<HI", 0, len(first) + 6 * ((i + 1) % number))
    return bytes(content)


def shared_values(number: int, size: int) -> bytes:
    """A TIFF of tags that share one value of ``size`` bytes."""
    content = strips(8, 8, bytes(size), tags={1000 + i: (7, b"12345") for i in range(number)})
    entries = {struct.pack("<HHI", 1000 + i, 7, 5): struct.pack("<HHII", 1000 + i, 7, size, 8) for i in range(number)}
    for entry, changed in entries.items():
        at = content.index(entry)
        content = content[:at] + changed + content[at + 12 :]
    return content


def encoded(format: str, side: int, mode: str = "RGB", **options: Any) -> bytes:
    """An image file of one colour."""
    sink = io.BytesIO()
    Image.new(mode, (side, side)).save(sink, format, **options)
    return sink.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(side: int, extra: bytes = b"", bits: int = 8, colour_type: int = 2) -> bytes:
    """A PNG without pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, bits, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def progressive_jpeg(scans: int) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    content = encoded("JPEG", 2000, progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * scans + b"\xff\xd9"


def jpeg2000(side: int, tile_side: int, boxed: bool) -> bytes:
    """A JPEG 2000 image of three bands whose tiles have no content."""
    content = encoded("JPEG2000", 64, no_jp2=not boxed)
    at = content.index(b"\xff\x4f\xff\x51") + 8
    return content[:at] + struct.pack(">8I", side, side, 0, 0, tile_side, tile_side, 0, 0) + content[at + 32 :]


def resized(content: bytes, mark: bytes, offset: int, size: bytes) -> bytes:
    """An image file whose header, ``offset`` bytes after ``mark``, states another size."""
    at = content.index(mark) + offset
    return content[:at] + size + content[at + len(size) :]


def bitmap(side: int, compression: int, data: bytes) -> bytes:
    """A BMP of 8 bits a pixel."""
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, compression, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 1078) + header + bytes(1024) + data


def hostile_images() -> dict[str, tuple[bytes, str]]:
    """Name, content and words of the error."""
    webp, avif = encoded("WEBP", 8, lossless=True), encoded("AVIF", 8)
    large_jpeg = resized(encoded("JPEG", 8, "L"), b"\xff\xc0", 5, struct.pack(">HH", 9000, 9000))
    lerc = imagecodecs.lerc_encode(np.zeros((8, 8), np.float32))
    large_lerc = resized(lerc, b"Lerc2 ", 14, struct.pack("<2i", 8000, 8000))
    files = {
        "sparse_float64.tif": (strips(SIDE, SIDE, bits=64, sample_format=3), "at most 512 MiB when decoded"),
        "sparse_complex.tif": (strips(SIDE, SIDE, bits=128, sample_format=6), "at most 512 MiB when decoded"),
        "bands.tif": (strips(SIDE, SIDE, bands=200, tags={258: (3, [8] * 200)}), "at most 512 MiB when decoded"),
        "fax.tif": (strips(SIDE, SIDE, bytes(100), bits=1, compression=3), "at most 512 MiB when decoded"),
        "empty.tif": (strips(500, 500, bits=128, sample_format=6), "a TIFF without pixels"),
        "missing_strips.tif": (
            strips(1000, 1000, bytes(8), compression=8, tags={278: (4, [1])}),
            "1 strips or tiles of 1,000",
        ),
        "strips.tif": (strips(1, 500_000, bytes(1), number=500_000), "500,000 strips or tiles, more than 131,072"),
        "overlap.tif": (strips(1000, 500, bytes(900), number=500), "450,000 bytes in a file of"),
        "tile.tif": (tile(1 << 15, _ZEROS[:60_000], 8), "tiles of 1,073,741,824 bytes for an image of 64 bytes"),
        "palette_tile.tif": (tile(46_000, bytes(100), 8, photometric=3), "tiles of 2,116,000,000 bytes"),
        "tags.tif": (shared_values(1000, 100_000), "tags of 100,000,030 bytes in a file of 117,134 bytes"),
        "circle.tif": (directories(300, [1000, 8, 8]), "pages of different shapes"),
        "pages.tif": (directories(1, [100_000, 8, 8]), "pages of different shapes"),
        "text.png": (png(8, chunk(b"zTXt", b"k\0\0" + _ZEROS)), "too large"),
        "utf8.png": (png(8, chunk(b"iTXt", b"k\0\1\0\0\0" + _ZEROS)), "too large"),
        "profile.png": (png(8, chunk(b"iCCP", b"k\0\0" + _ZEROS)), "too large"),
        "size.png": (png(100_000), "exceeds limit"),
        "alpha.png": (png(SIDE, colour_type=6), "at most 512 MiB when decoded"),
        "deep.png": (png(9000, bits=16), "at most 512 MiB when decoded"),
        "scans.jpg": (progressive_jpeg(2000), "a JPEG of 2,0.. scans, more than 32"),
        "size.webp": (resized(webp, b"VP8L", 9, struct.pack("<I", 8999 | 8999 << 14)), "at most 512 MiB when decoded"),
        "size.avif": (resized(avif, b"ispe", 8, struct.pack(">II", 9000, 9000)), "at most 512 MiB when decoded"),
        "lerc.tif": (
            strips(8, 8, large_lerc, bits=32, sample_format=3, compression=34887),
            "at most 8 x 8 values in a TIFF chunk, found 8000 x 8000 x 1",
        ),
        "jpeg.tif": (
            strips(8, 8, large_jpeg, compression=7),
            "at most 8 x 8 values in a TIFF chunk, found 9000 x 9000 x 1",
        ),
        "size.gif": (b"GIF89a" + struct.pack("<HH", SIDE, SIDE) + encoded("GIF", 8, "P")[10:], "at most 512 MiB"),
        "frame.gif": (encoded("GIF", 8, "P").replace(b"\x08\0\x08\0", b"\xff\xff\xff\xff"), "exceeds limit"),
        "size.jp2": (jpeg2000(9000, 9000, boxed=False), "at most 512 MiB when decoded"),
        "tiles.j2k": (jpeg2000(8000, 32, boxed=False), "62,500 tiles, more than 16,384"),
        "tiles.jp2": (jpeg2000(64, 64, boxed=True)[:-500], "decodable image"),
        "rle.bmp": (bitmap(SIDE, 1, b"\0\2\0\xff" * 100), "at most 512 MiB when decoded"),
        "size.ppm": (b"P6 13000 13000 255\n", "at most 512 MiB when decoded"),
        "size.pfm": (b"Pf 13000 13000 -1.0\n", "at most 512 MiB when decoded"),
        "blank_header.ppm": (b"P6" + b" " * 8_000_000 + b"8 8 255\n" + bytes(192), "a PPM header of more than 1024"),
        "comment.ppm": (b"P6 #" + b"x" * 8_000_000 + b"\n8 8 255\n" + bytes(192), "a PPM header of more than 1024"),
        "text.ppm": (b"P3 8 8 255\n" + b"#\n" * 400_000, "a PPM in plain text"),
    }
    for name, compression in (("zlib", 8), ("lzw", 5), ("lzma", 34925), ("zstd", 50000)):
        zeros = getattr(imagecodecs, f"{name}_encode")(bytes(50_000_000 if name == "zstd" else 10_000_000))
        for kind, tags in (("grey", {}), ("palette", {262: (3, [3])} | _PALETTE)):
            content = strips(8, 8, zeros, compression=compression, tags=tags)
            files[f"{name}_{kind}.tif"] = (content, "compressed bytes in a TIFF chunk of 64 bytes")
    return files
