"""Decoding the pictures that records name, to see whether they are what they should be."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geovlm_ray.core.pixels import PixelSettings
from geovlm_ray.data.convert import UNREADABLE
from geovlm_ray.data.images import load_image, resolve
from geovlm_ray.data.validation.fingerprints import file_key, picture_key, text_key
from geovlm_ray.data.validation.ledger import PICTURE

ABSENT = "expected a file, found none"


@dataclass(frozen=True)
class Picture:
    """An image of a record: a path below a root, which holds no links, and how its bands become RGB."""

    root: Path
    name: str
    pixels: PixelSettings

    @property
    def reference(self) -> str:
        """What `load_image` takes."""
        return f"{self.root}//{self.name}"


def look_at(pictures: Sequence[Picture]) -> tuple[np.ndarray, list[str]]:
    """Each picture decoded once: an array of `PICTURE`, and the faults that its ``fault`` numbers from 1."""
    seen = np.zeros(len(pictures), dtype=PICTURE)
    faults: dict[str, int] = {}
    with warnings.catch_warnings():
        # What is wrong with a file is said here, once.
        warnings.simplefilter("ignore")
        for entry, picture in zip(seen, pictures, strict=True):
            _look(picture, entry, faults)
    return seen, list(faults)


def _look(picture: Picture, entry: np.void, faults: dict[str, int]) -> None:
    """Fill in the entry of a picture; a new fault gets the next number."""
    entry["name"] = text_key(str(picture.root), picture.name)
    try:
        if is_absent(picture):
            entry["absent"] = True
            entry["fault"] = faults.setdefault(ABSENT, len(faults) + 1)
            return
        image = load_image(picture.reference, picture.pixels)
        entry["width"], entry["height"] = image.size
        entry["looks"] = picture_key(image)
        entry["content"] = file_key(resolve(picture.reference))
    except (*UNREADABLE, RuntimeError, MemoryError) as error:
        entry["fault"] = faults.setdefault(_without_name(error, picture), len(faults) + 1)


def is_absent(picture: Picture) -> bool:
    """Whether nothing stands at a path that does lie below the root."""
    path = (picture.root / picture.name).resolve()
    return path.is_relative_to(picture.root) and not path.exists()


def _without_name(error: BaseException, picture: Picture) -> str:
    """What is wrong in words that do not name the picture, so that all pictures with one fault share them."""
    text = " ".join(str(error).split()) or type(error).__name__
    path = os.path.realpath(picture.root / picture.name) if "\0" not in picture.name else ""
    for name in (path, picture.reference, f"{picture.reference!r:.500}"):
        text = text.removeprefix(f"image {name}: ")
    return text.replace(f" {path!r}", "")[:300]
