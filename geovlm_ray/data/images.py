"""Images as the model sees them: a reference in, an RGB picture of the asked size out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageOps, UnidentifiedImageError

from geovlm_ray.data.scenes import draw
from geovlm_ray.errors import DataError

MAX_PIXELS = 200_000_000
SCENE_PREFIX = "scene:"


def resolve(reference: str, root: Path | None = None) -> Path:
    """Path of an image reference, which must exist and lie under ``root`` where one is given.

    Raises:
        DataError: the file is absent, or the path leaves the root.
    """
    path = Path(reference) if root is None else root / reference
    if root is not None and not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"image {reference}: the path leaves the data root {root}")
    if not path.is_file():
        raise DataError(f"image {path}: expected a file, found none")
    return path


def load_image(reference: str, size: int | None = None, root: Path | None = None) -> Image.Image:
    """The RGB picture behind a reference, resized to ``size`` x ``size`` pixels where a size is given.

    A reference is ``scene:...`` for a drawn scene, else a path relative to ``root`` (TIFF with 1 or more
    bands of 8, 16 or 32 bit, or anything that Pillow reads). Orientation tags are obeyed, palettes,
    transparency and CMYK become RGB.

    Raises:
        DataError: absent, truncated, of an unknown kind, or of more than 200 million pixels.
    """
    image = draw(reference) if reference.startswith(SCENE_PREFIX) else _read(resolve(reference, root))
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return image


def _read(path: Path) -> Image.Image:
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            return _read_tiff(path)
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"image {path}: {image.width} x {image.height} pixels, at most {MAX_PIXELS} are read")
            image.load()
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"image {path}: expected a picture that decodes, found: {error}") from error
    except tifffile.TiffFileError as error:
        raise DataError(f"image {path}: expected a TIFF that decodes, found: {error}") from error


def _read_tiff(path: Path) -> Image.Image:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        if page.size > MAX_PIXELS * 16:
            raise DataError(f"image {path}: {page.shape} values, at most {MAX_PIXELS} pixels are read")
        bands = page.asarray()
        first_axis_is_band = tiff.series[0].keyframe.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    if bands.ndim == 2:
        bands = bands[..., None]
    elif first_axis_is_band:
        bands = np.moveaxis(bands, 0, -1)
    if bands.ndim != 3:
        raise DataError(f"image {path}: expected rows, columns and bands, found an array of shape {bands.shape}")
    bands = bands[..., :3] if bands.shape[-1] >= 3 else np.repeat(bands[..., :1], 3, axis=-1)
    return Image.fromarray(bands if bands.dtype == np.uint8 else _stretch(bands))


def _stretch(bands: np.ndarray) -> np.ndarray:
    """Map the 2nd to 98th percentile of all finite values to 0..255 (the usual display stretch of the field)."""
    values = bands.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(bands.shape, np.uint8)
    low, high = np.percentile(values[finite], (2, 98))
    scaled = (np.where(finite, values, low) - low) / max(float(high - low), 1e-6)
    return (scaled.clip(0, 1) * 255).round().astype(np.uint8)
