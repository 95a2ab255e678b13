"""Loading of images by reference as upright RGB.

A reference is ``scene:...`` for a synthetic scene, ``ROOT//relative/path`` for a file that must lie below ROOT, or a
plain path. The file type is detected from the content, not from the name.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.pixels import PixelSettings, to_rgb
from geovlm_ray.data import tiff
from geovlm_ray.data.image_limits import (
    MAX_DECODED_BYTES,
    Header,
    check_before_opening,
    check_opened,
    decoded_bytes,
)
from geovlm_ray.data.scene_draw import SCENE_SIZE
from geovlm_ray.data.scenes import render_scene

SCENE_PREFIX = "scene:"
ROOT_END = "//"
# Pillow supports more formats, but some of them start external programs.
PILLOW_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "AVIF", "JPEG2000", "PPM", "TIFF")
# An image above the limit of this library is an error, and one below is no reason for a warning.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
DEFAULT_PIXELS = PixelSettings()
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def resolve(reference: str) -> Path:
    """Path of the file of a non-scene reference, with symbolic links resolved.

    Raises:
        DataError: The file is absent, not a regular file, or outside its root.
    """
    cut = reference.find(ROOT_END, 1)
    try:
        if cut < 0:
            path = Path(reference).resolve()
        else:
            root = Path(reference[:cut]).resolve()
            path = (root / reference[cut + len(ROOT_END) :]).resolve()
            if not path.is_relative_to(root):
                raise DataError(f"image {reference}: expected a path below {root}, found a path outside it")
        if not path.is_file():
            raise DataError(
                f"image {path}: expected a file, found {'a directory or special file' if path.exists() else 'none'}"
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"image {reference!r:.500}: expected the path of a file, found: {error}") from error
    return path


def image_size(reference: str) -> tuple[int, int]:
    """Width and height in pixels of the upright image, read from the header only.

    Raises:
        DataError: The file is absent, not an image, or larger than `MAX_DECODED_BYTES` when decoded.
    """
    if reference.startswith(SCENE_PREFIX):
        return SCENE_SIZE, SCENE_SIZE
    return upright_size(image_header(reference))


def upright_size(header: Header) -> tuple[int, int]:
    """Width and height in pixels of the image as displayed."""
    transposed = header.orientation in (5, 6, 7, 8)
    return (header.height, header.width) if transposed else (header.width, header.height)


def image_header(reference: str | bytes, limit: int = MAX_DECODED_BYTES) -> Header:
    """Stored and decoded size and EXIF orientation of an image file, given by its reference or its content.

    Raises:
        DataError: The file is absent, not an image, or larger than ``limit`` bytes when decoded.
    """
    path = Path("in the record") if isinstance(reference, bytes) else resolve(reference)
    with _image_errors(path), BytesIO(reference) if isinstance(reference, bytes) else path.open("rb") as file:
        if tiff.is_tiff(file):
            return tiff.read_header(file).check(limit)
        with _open(file) as image:
            return _pillow_header(image).check(limit)


def load_image(reference: str, pixels: PixelSettings = DEFAULT_PIXELS, at_least: int | None = None) -> Image.Image:
    """Load an image as upright RGB, with transparent pixels black.

    Of several frames or pages, the first is loaded.

    Args:
        reference: Scene or file reference.
        pixels: Band selection and stretch.
        at_least: Side length in pixels that the caller resizes to. A much larger JPEG is then decoded at 1/2, 1/4 or
            1/8 of its size, with both sides at least ``2 * at_least``: up to four times as fast, and the resized image
            differs by at most a few of 255 levels.

    Raises:
        DataError: The image is absent, broken, of an unsupported type, larger than `MAX_DECODED_BYTES` when decoded,
            or lacks a band that ``pixels`` selects.
    """
    if reference.startswith(SCENE_PREFIX):
        try:
            return render_scene(reference)
        except ValueError as error:
            raise DataError(f"image {reference!r:.200}: {error}") from error
    path = resolve(reference)
    with _image_errors(path), path.open("rb") as file:
        header = tiff.read_header(file) if tiff.is_tiff(file) else None
        raster = tiff.read_raster(file) if header else None
        if raster is not None:
            image = Image.fromarray(to_rgb(raster.values, pixels, raster.nodata))
        else:
            with _open(file) as opened:
                pillow_header = _pillow_header(opened)
                header = header or pillow_header
                check_opened(opened, file)
                image = _decoded(opened, file, pixels, at_least)
        orientation = header.orientation if header else 1
        return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


@contextmanager
def _image_errors(path: Path) -> Iterator[None]:
    """Turn every exception of reading the file into a DataError with its path."""
    try:
        yield
    except DataError as error:
        raise DataError(f"image {path}: {error}") from error
    except (*tiff.UNREADABLE, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"image {path}: expected a decodable image, found: {reason[:300]}") from error


def _open(file: BinaryIO) -> ImageFile.ImageFile:
    check_before_opening(file)
    return Image.open(file, formats=PILLOW_FORMATS)


def _pillow_header(image: ImageFile.ImageFile) -> Header:
    # PngImageFile.getexif decodes all pixels to find a chunk behind them; the base method does not.
    orientation = Image.Image.getexif(image).get(_ORIENTATION, 1)
    return Header(*image.size, decoded_bytes(image), orientation).check()


def _decoded(image: ImageFile.ImageFile, file: BinaryIO, pixels: PixelSettings, at_least: int | None) -> Image.Image:
    """Decode an image that Pillow opened from ``file``, without applying its orientation."""
    if at_least is not None and pixels == DEFAULT_PIXELS:
        image.draft(None, (2 * at_least, 2 * at_least))
    bands = _raw_bands(image, file, as_stored=bool(pixels.bands))
    if bands is None:
        opaque = _opaque(image)
        if pixels == DEFAULT_PIXELS:
            return opaque
        bands = np.asarray(opaque)
    return Image.fromarray(to_rgb(bands, pixels))


def _raw_bands(image: ImageFile.ImageFile, file: BinaryIO, as_stored: bool) -> np.ndarray | None:
    """Bands [rows, columns, n] of a 16-bit, 32-bit or float image; None for other images.

    With ``as_stored``, also the channels of 8-bit images that need no colour conversion, alpha included.
    """
    if image.mode in ("RGB", "RGBA") and image.tile and image.tile[0].args in ("RGB;16B", "RGBA;16B"):
        return _sixteen_bit(image, file)
    if image.mode.startswith("I") or image.mode == "F":
        return np.asarray(image)[..., None]
    if as_stored and image.mode in ("L", "LA", "RGB", "RGBA"):
        return np.atleast_3d(np.asarray(image))
    return None


def _sixteen_bit(image: ImageFile.ImageFile, file: BinaryIO) -> np.ndarray:
    """Values of a 16-bit colour PNG: Pillow keeps the high bytes; decoding as little-endian yields the low bytes."""
    values = np.asarray(image).astype(np.uint16)
    values *= 256
    file.seek(0)
    with Image.open(file, formats=PILLOW_FORMATS) as low_bytes:
        tile = low_bytes.tile[0]
        low_bytes.tile = [tile._replace(args=str(tile.args).replace("16B", "16L"))]
        values += np.asarray(low_bytes)
    return values


def _opaque(image: ImageFile.ImageFile) -> Image.Image:
    """The image as RGB, with transparent pixels black."""
    if not image.has_transparency_data:
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")
    transparent = image.convert("RGBA")
    black = Image.new("RGB", image.size)
    black.paste(transparent, mask=transparent)
    return black
