"""Decoding and fingerprinting of the images of records."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geovlm_ray.core.errors import UNREADABLE, DataError
from geovlm_ray.core.pixels import PixelSettings
from geovlm_ray.data.images import load_image, resolve
from geovlm_ray.data.validation.faults import IMAGE_DTYPE
from geovlm_ray.data.validation.fingerprints import file_key, perceptual_hash, text_key

ABSENT = "expected a file, found none"


@dataclass(frozen=True)
class RecordImage:
    """An image of a record: a path below a root without symbolic links, and the pixel settings."""

    root: Path
    name: str
    pixels: PixelSettings

    @property
    def reference(self) -> str:
        """Reference for `load_image`."""
        return f"{self.root}//{self.name}"


def check_images(images: Sequence[RecordImage]) -> tuple[np.ndarray, list[str]]:
    """Decode images; return an array of `IMAGE_DTYPE`, and the fault messages that its ``fault`` indexes from 1."""
    checked = np.zeros(len(images), dtype=IMAGE_DTYPE)
    faults: dict[str, int] = {}
    with warnings.catch_warnings():
        # Problems of a file are reported as faults.
        warnings.simplefilter("ignore")
        for entry, image in zip(checked, images, strict=True):
            _check_image(image, entry, faults)
    return checked, list(faults)


def _check_image(record_image: RecordImage, entry: np.void, faults: dict[str, int]) -> None:
    """Fill in the entry of an image; a new fault message gets the next index."""
    entry["name"] = text_key(str(record_image.root), record_image.name)
    try:
        if is_absent(record_image):
            entry["absent"] = True
            raise DataError(ABSENT)
        image = load_image(record_image.reference, record_image.pixels)
        entry["width"], entry["height"] = image.size
        entry["phash"] = perceptual_hash(image)
        entry["content"] = file_key(resolve(record_image.reference))
    except (*UNREADABLE, RuntimeError, MemoryError) as error:
        entry["fault"] = faults.setdefault(_without_name(error, record_image), len(faults) + 1)


def is_absent(image: RecordImage) -> bool:
    """Whether the path lies below the root and does not exist."""
    path = Path(os.path.realpath(image.root / image.name))
    return path.is_relative_to(image.root) and not path.exists()


def _without_name(error: BaseException, image: RecordImage) -> str:
    """Error message without the image name, so that all images with the same fault share it."""
    text = " ".join(str(error).split()) or type(error).__name__
    path = os.path.realpath(image.root / image.name) if "\0" not in image.name else ""
    for name in (path, image.reference, f"{image.reference!r:.500}"):
        text = text.removeprefix(f"image {name}: ")
    return text.replace(f" {path!r}", "")[:300]
