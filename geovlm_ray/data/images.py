"""Images as pictures: a reference in, RGB out, whatever the file holds.

References are ``scene:...`` for a drawn scene; ``ROOT//relative/path``, of which nothing outside ROOT is read; or a
plain path. What a file is, its content says, not its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.pixels import PixelSettings, to_rgb
from geovlm_ray.data import tiff
from geovlm_ray.data.scene_draw import SCENE_SIZE
from geovlm_ray.data.scenes import render_scene

MAX_PIXELS = 178_956_970
"""The number at which Pillow, too, takes an image for a bomb."""
SCENE_PREFIX = "scene:"
ROOT_END = "//"
# Pillow knows more, some of which start other programs; these are what images of the field come in.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "AVIF", "JPEG2000", "PPM", "TIFF")
DEFAULT = PixelSettings()
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
    """The file behind a reference that is no scene, links resolved.

    Raises:
        DataError: it is absent or no file, or lies outside its root.
    """
    cut = reference.find(ROOT_END, 1)
    try:
        if cut < 0:
            path = Path(reference).resolve()
        else:
            root = Path(reference[:cut]).resolve()
            path = (root / reference[cut + len(ROOT_END) :]).resolve()
            if not path.is_relative_to(root):
                raise DataError(f"image {reference}: expected a path below {root}, found that it leads out of it")
        if not path.is_file():
            raise DataError(f"image {path}: expected a file, found {'something else' if path.exists() else 'none'}")
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"image {reference!r:.500}: expected the path of a file, found: {error}") from error
    return path


def image_size(reference: str) -> tuple[int, int]:
    """Width and height in pixels of an upright image, from its header alone.

    Raises:
        DataError: it is absent, no image, or of more than 179 million pixels.
    """
    if reference.startswith(SCENE_PREFIX):
        return SCENE_SIZE, SCENE_SIZE
    path = resolve(reference)
    with _named(path):
        header = _header(path)
        turned = header.orientation in (5, 6, 7, 8)
        return (header.height, header.width) if turned else (header.width, header.height)


def load_image(reference: str, pixels: PixelSettings = DEFAULT, at_least: int | None = None) -> Image.Image:
    """The picture behind a reference: upright, RGB, transparent parts black.

    Of several frames or pages it is the first. With ``at_least`` a JPEG that is much larger may come at a half, a
    quarter or an eighth of its size, both sides still at least twice that many pixels: reading it is then four times
    as fast, and no pixel of a picture resized to ``at_least`` changes by more than a few of 255 levels.

    Raises:
        DataError: absent, broken, of an unknown kind, a bomb, or without a band that ``pixels`` asks for.
    """
    if reference.startswith(SCENE_PREFIX):
        try:
            return render_scene(reference)
        except ValueError as error:
            raise DataError(f"image {reference!r:.200}: {error}") from error
    path = resolve(reference)
    with _named(path):
        header = _header(path)
        raster = tiff.read_raster(path) if _is_tiff(path) else None
        if raster is not None:
            image = Image.fromarray(to_rgb(raster.values, pixels, raster.nodata))
        else:
            image = _picture(path, pixels, at_least)
        return image.transpose(_UPRIGHT[header.orientation]) if header.orientation in _UPRIGHT else image


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """One error, with the file's name, for all that reading it may raise."""
    try:
        yield
    except DataError as error:
        raise DataError(f"image {path}: {error}") from error
    except (*tiff.UNREADABLE, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"image {path}: expected a picture that decodes, found: {reason[:300]}") from error


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in tiff.SIGNATURES


def _header(path: Path) -> tiff.Header:
    if _is_tiff(path):
        header = tiff.read_header(path)
    else:
        with Image.open(path, formats=FORMATS) as image:
            # Pillow's own method for PNG decodes all pixels to look for a tag behind them.
            orientation = Image.Image.getexif(image).get(_ORIENTATION, 1)
            header = tiff.Header(*image.size, orientation)
    if header.width * header.height > MAX_PIXELS:
        raise DataError(f"{header.width} x {header.height} pixels, at most {MAX_PIXELS:,} are read")
    return header


def _picture(path: Path, pixels: PixelSettings, at_least: int | None) -> Image.Image:
    """An image that Pillow reads, as it lies in the file."""
    with Image.open(path, formats=FORMATS) as image:
        if at_least is not None and pixels == DEFAULT:
            image.draft(None, (2 * at_least, 2 * at_least))
        bands = _bands(image, path, as_stored=bool(pixels.bands))
        if bands is None:
            opaque = _on_black(image) if image.has_transparency_data else image.convert("RGB")
            if pixels == DEFAULT:
                return opaque
            bands = np.asarray(opaque)
    return Image.fromarray(to_rgb(bands, pixels))


def _bands(image: ImageFile.ImageFile, path: Path, as_stored: bool) -> np.ndarray | None:
    """The bands [rows, columns, n] of an image of numbers; None for a picture.

    With ``as_stored`` the channels of every image that needs no colour conversion are its bands, alpha included.
    """
    if image.mode in ("RGB", "RGBA") and image.tile and image.tile[0].args in ("RGB;16B", "RGBA;16B"):
        return _sixteen_bit(image, path)
    if image.mode.startswith("I") or image.mode == "F":
        return np.asarray(image)[..., None]
    if as_stored and image.mode in ("L", "LA", "RGB", "RGBA"):
        return np.atleast_3d(np.asarray(image))
    return None


def _sixteen_bit(image: ImageFile.ImageFile, path: Path) -> np.ndarray:
    """The values of a PNG of 16-bit colour, of which Pillow keeps the upper bytes; read the other way round it keeps
    the lower ones.
    """
    with Image.open(path, formats=FORMATS) as other:
        tile = other.tile[0]
        other.tile = [tile._replace(args=str(tile.args).replace("16B", "16L"))]
        return np.asarray(image).astype(np.uint16) * np.uint16(256) + np.asarray(other)


def _on_black(image: Image.Image) -> Image.Image:
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
