"""Location of a source's images, in the folders where datasets usually have them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from geovlm_ray.data.formats.base import Source
from geovlm_ray.data.formats.evidence import Evidence, collect_evidence
from geovlm_ray.data.formats.files import (
    IMAGE_ENDINGS,
    IMAGE_WORDS,
    SPLITS,
    default_image_root,
    image_exists,
    split_from_name,
)

PLAIN_WORDS = {"image", "images", "img", "imgs", "jpeg", "jpg", "png", "tif", "tiff", "rgb", "all", "trainval", *SPLITS}
"""Words of which the names of image folders beside a source consist."""
MAX_SUBFOLDERS = 200
MAX_DEPTH = 6
"""Levels of a record that are searched for image names."""


def image_root_of(path: Path) -> Path:
    """The folder that the image paths of a source are relative to.

    It is `default_image_root`, unless none of the images that the first records name is there, but in another usual
    folder: one beside or above the source, or below it, such as ``images`` or ``train2017``. A folder whose subfolders
    hold the images of one split each is the root of all. Beside the source, only folders whose names say nothing but
    images and split count: others, such as ``ucm_images``, may belong to another dataset with the same file names.
    """
    usual = default_image_root(path)
    if not path.exists():
        return usual
    names = list(dict.fromkeys(_image_names(collect_evidence(Source(path, usual)))))
    if not names or _found(usual, names):
        return usual
    parent = usual.resolve().parent
    roots = {usual: [usual, *_image_folders(usual)]}
    roots[parent] = [parent, *(f for f in _image_folders(parent) if _is_plain_name(f.relative_to(parent).parts[0]))]
    best = max((folder for folders in roots.values() for folder in folders), key=lambda folder: _found(folder, names))
    for base, folders in roots.items():
        if _found_in_any(folders, names) > _found(best, names):
            return base
    return best if _found(best, names) else usual


def _image_folders(base: Path) -> Iterator[Path]:
    """The subfolders of a folder, and theirs, that are named like images or a split."""
    try:
        children = sorted(entry.name for entry in islice(os.scandir(base), MAX_SUBFOLDERS) if entry.is_dir())
    except OSError:
        return
    for child in children:
        if any(word in child.lower() for word in IMAGE_WORDS) or split_from_name(child, ""):
            yield base / child
            yield from _image_folders(base / child)


def _is_plain_name(name: str) -> bool:
    """Whether a folder's name consists of words for images and splits, such as ``JPEGImages`` or ``images_train2017``.

    Words of one letter count: change datasets have folders such as ``images_A``.
    """
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return all(len(word) == 1 or word.lower() in PLAIN_WORDS for word in words)


def _found(folder: Path, names: Sequence[str]) -> int:
    source = Source(folder, folder)
    return sum(image_exists(source, name) for name in names)


def _found_in_any(folders: Sequence[Path], names: Sequence[str]) -> int:
    sources = [Source(folder, folder) for folder in folders]
    return sum(any(image_exists(source, name) for source in sources) for name in names)


def _image_names(evidence: Evidence) -> Iterator[str]:
    """The relative image paths in the first records of a source."""
    values = [*evidence.records, *evidence.members]
    for text in _texts(values, MAX_DEPTH):
        is_path = text.lower().endswith(IMAGE_ENDINGS) and len(text) < 500 and "://" not in text and "\0" not in text
        if is_path and not text.startswith("/"):
            yield text.replace("\\", "/")


def _texts(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth and isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item, depth - 1)
