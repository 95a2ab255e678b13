"""Helpers of formats: walking folders, locating images, recognizing splits, reading options."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.formats.base import Source, Unit
from geovlm_ray.data.formats.streams import relative
from geovlm_ray.data.images import ROOT_END, resolve

T = TypeVar("T")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2")
IMAGE_FOLDERS = ("images", "image", "JPEGImages", "AllImages")
"""Common names of the folder of a dataset's images."""
IMAGE_WORDS = ("image", "img")
"""Parts of the names of folders of images, such as ``RSICD_images``."""
MAX_FOLDERS = 2_000
"""Folders that are searched for an image."""
HIDDEN_PREFIXES = (".", "__MACOSX")
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "validate": "validation",
    "dev": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "minival": "validation",
    "test": "test",
    "testing": "test",
}


def normalize_split(name: str) -> str:
    """Map common names of splits to train, validation and test; other names stay unchanged."""
    return SPLITS.get(name.strip().lower(), name.strip())


def split_from_name(name: str, default: str = "train") -> str:
    """The split in a file name such as ``instances_val2017``, else ``default``."""
    return next((SPLITS[word] for word in re.findall("[a-z]+", name.lower()) if word in SPLITS), default)


def split_of_folder(folder: Path, source: Source, extra_names: Sequence[str] = (), default: str = "train") -> str:
    """The split of a folder: the topmost path component below and including the source that names one.

    ``extra_names`` are split names specific to the dataset. Without a match it is ``default``.
    """
    for part in (source.folder.resolve().name, *folder.relative_to(source.folder).parts):
        if part.lower() in SPLITS or part in extra_names:
            return normalize_split(part)
    return default


def walk_folders(source: Source) -> Iterator[tuple[Path, list[str]] | Unit]:
    """Each folder of a source with its file names, all sorted.

    Yields a unit with a problem for each linked folder, unreadable folder and name that is not UTF-8. Skips hidden
    entries, which operating systems and editors leave behind, among them copies of images.

    Raises:
        DataError: the source is a file.
    """
    if not source.path.is_dir():
        raise DataError(f"{source.path}: expected a folder, found a file")
    errors: list[OSError] = []
    for folder_name, subfolders, files in os.walk(source.path, onerror=errors.append):
        folder = Path(folder_name)
        for name in [n for n in (*subfolders, *files) if not _is_utf8(n)]:
            yield Unit(_printable(folder / name, source), 1, problem="expected a UTF-8 name, found another encoding")
        subfolders[:] = sorted(s for s in subfolders if _is_utf8(s) and not s.startswith(HIDDEN_PREFIXES))
        for link in (folder / s for s in subfolders if (folder / s).is_symlink()):
            problem = "expected a folder, found a symbolic link, which is not followed"
            yield Unit(relative(link, source), 1, problem=problem)
        yield folder, sorted(f for f in files if _is_utf8(f) and not f.startswith(HIDDEN_PREFIXES))
    for error in errors:
        name = _printable(Path(error.filename), source)
        yield Unit(name, 1, problem=f"expected a readable folder, found: {error.strerror}")


def folder_units(
    source: Source, of_folder: Callable[[Path, list[str]], Iterator[Unit]], pattern: str
) -> Iterator[Unit]:
    """The units that ``of_folder`` makes of each folder and its file names, and the problems of `walk_folders`.

    ``pattern`` names the files that ``of_folder`` looks for, in the error message.

    Raises:
        DataError: ``of_folder`` makes no unit.
    """
    found = False
    for item in walk_folders(source):
        if isinstance(item, Unit):
            yield item
            continue
        for unit in of_folder(*item):
            found = True
            yield unit
    if not found:
        raise DataError(f"{source.path}: expected files {pattern} in its folders, found none")


def _is_utf8(name: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in name)


def _printable(path: Path, source: Source) -> str:
    return relative(path, source).encode("utf-8", "replace").decode()


def default_image_root(path: Path) -> Path:
    """The folder that image paths of a source are relative to: the source or that of its file.

    It is the folder above a source that is a folder of labels, without images, beside a folder of images.
    """
    if path.is_file():
        return path.parent
    folders = itertools.islice(os.walk(path), MAX_FOLDERS)
    if any(name.lower().endswith(IMAGE_ENDINGS) for _, _, files in folders for name in files):
        return path
    beside = (path.resolve().parent / name for name in IMAGE_FOLDERS)
    return path.resolve().parent if any(folder.is_dir() for folder in beside) else path


def image_exists(source: Source, reference: str) -> bool:
    """Whether an image reference resolves to a file below the image root."""
    if not os.path.lexists(source.images / reference):
        return False
    try:
        resolve(f"{source.images}{ROOT_END}{reference}")
    except DataError:
        return False
    return True


def image_in_split(source: Source, file: str, name: str) -> str:
    """An image that a file of annotations names: below the image root, or in its folder of images or of the split.

    ``instances_train2017.json`` means ``train2017``, ``train``, ``images/train2017`` and so on. If there is no such
    image, it is the name itself.
    """
    if image_exists(source, name):
        return name
    stem = Path(file).stem
    words = [word for word in re.split(r"[_\W]+", stem) if split_from_name(word, "")]
    splits = dict.fromkeys([*words, split_from_name(stem, ""), *(re.sub(r"\d+$", "", word) for word in words)])
    folders = [*(s for s in splits if s), *IMAGE_FOLDERS, *(f"{i}/{s}" for i in IMAGE_FOLDERS for s in splits if s)]
    return first_existing(source, (name, *(f"{folder}/{name}" for folder in folders)))


def first_existing(source: Source, references: Sequence[str]) -> str:
    """The first image reference that exists, or the first of all if none does."""
    return next((r for r in references if image_exists(source, r)), references[0])


def sample_evenly(items: Sequence[T], limit: int) -> list[T]:
    """At most ``limit`` items, evenly spaced from the first to the last."""
    if len(items) <= limit:
        return list(items)
    return [items[i * (len(items) - 1) // max(limit - 1, 1)] for i in range(limit)]


def choice_option(source: Source, name: str, choices: Sequence[str]) -> str:
    """The value of an option that is one of ``choices``; the first is the default.

    Raises:
        DataError: the value is not a choice.
    """
    value = source.options.get(name, choices[0])
    if value not in choices:
        raise DataError(f"option {name}: expected {' or '.join(choices)}, found {value!r}")
    return value


def int_option(source: Source, name: str, default: int) -> int:
    """The value of an option that is a positive integer of at most 9 digits.

    Raises:
        DataError: the value is something else.
    """
    value = source.options.get(name, str(default))
    if not re.fullmatch("[1-9][0-9]{0,8}", value):
        raise DataError(f"option {name}: expected a positive integer, found {value!r}")
    return int(value)


def question_for(source: Source, default: str, label: str) -> str:
    """The option ``question`` with ``{label}`` replaced by a class name, its ``_`` and ``-`` by spaces.

    Raises:
        DataError: the option has no ``{label}``.
    """
    template = source.options.get("question", default)
    if "{label}" not in template:
        raise DataError(f"option question: expected a string with {{label}}, found {template!r}")
    return template.replace("{label}", label.replace("_", " ").replace("-", " "))
