"""Where sources that are folders keep things: their folders, a record's images, a split in a name, an option."""

from __future__ import annotations

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
HIDDEN = (".", "__MACOSX")
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def split_called(name: str) -> str:
    """A dataset's own name of a split as train, validation or test where it is obviously that."""
    return SPLITS.get(name.strip().lower(), name.strip())


def split_in_name(name: str, default: str = "train") -> str:
    """The split that a file name such as ``instances_val2017`` holds as a word."""
    return next((SPLITS[word] for word in re.findall("[a-z]+", name.lower()) if word in SPLITS), default)


def split_of_folder(folder: Path, source: Source, own: Sequence[str] = (), default: str = "train") -> str:
    """The split that a folder of a source lies in: the topmost on its way down from the source that is called so.

    ``own`` are names that the dataset has for splits beside the usual ones.
    """
    for part in (source.folder.resolve().name, *folder.relative_to(source.folder).parts):
        if part.lower() in SPLITS or part in own:
            return split_called(part)
    return default


def folders(source: Source) -> Iterator[tuple[Path, list[str]] | Unit]:
    """Every folder of a source with the names of its files, all in order.

    A unit with a problem stands for a folder that is a link, and for a name that is no text. Hidden ones are left
    out: they are what systems and editors leave behind, copies of images among them.

    Raises:
        DataError: the source is a file.
    """
    if not source.path.is_dir():
        raise DataError(f"{source.path}: expected a folder, found a file")
    unread: list[OSError] = []
    for name, below, files in os.walk(source.path, onerror=unread.append):
        folder = Path(name)
        for strange in [n for n in (*below, *files) if not _is_text(n)]:
            yield Unit(_text(folder / strange, source), 1, problem="expected a name in UTF-8, found another encoding")
        below[:] = sorted(b for b in below if _is_text(b) and not b.startswith(HIDDEN))
        for link in (folder / b for b in below if (folder / b).is_symlink()):
            yield Unit(
                relative(link, source), 1, problem="expected a folder, found a link to one, which is not followed"
            )
        yield folder, sorted(f for f in files if _is_text(f) and not f.startswith(HIDDEN))
    for error in unread:
        yield Unit(_text(Path(error.filename), source), 1, problem=f"the folder cannot be read: {error.strerror}")


def folder_units(source: Source, of_folder: Callable[[Path, list[str]], Iterator[Unit]], files: str) -> Iterator[Unit]:
    """The units that ``of_folder`` makes of every folder and the names of its files, and what `folders` finds wrong.

    Raises:
        DataError: it makes none, which means that there are no ``files``.
    """
    found = False
    for item in folders(source):
        if isinstance(item, Unit):
            yield item
            continue
        for unit in of_folder(*item):
            found = True
            yield unit
    if not found:
        raise DataError(f"{source.path}: expected folders that hold files {files}, found none")


def _is_text(name: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in name)


def _text(path: Path, source: Source) -> str:
    return relative(path, source).encode("utf-8", "replace").decode()


def is_there(source: Source, reference: str) -> bool:
    """Whether there is a file behind an image reference that lies below the image root."""
    if not os.path.lexists(source.images / reference):
        return False
    try:
        resolve(f"{source.images}{ROOT_END}{reference}")
    except DataError:
        return False
    return True


def first_there(source: Source, references: Sequence[str]) -> str:
    """The first of some image references behind which there is a file; the first of all where there is none."""
    return next((r for r in references if is_there(source, r)), references[0])


def spread(items: Sequence[T], most: int) -> list[T]:
    """All items, or as many as may be, evenly spread from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[i * (len(items) - 1) // max(most - 1, 1)] for i in range(most)]


def chosen(source: Source, name: str, among: Sequence[str]) -> str:
    """An option that names one of some values, the first being its default.

    Raises:
        DataError: it is none of them.
    """
    value = source.options.get(name, among[0])
    if value not in among:
        raise DataError(f"option {name}: expected {' or '.join(among)}, found {value!r}")
    return value


def counted(source: Source, name: str, default: int) -> int:
    """An option that is a whole number from 1.

    Raises:
        DataError: it is something else.
    """
    value = source.options.get(name, str(default))
    if not re.fullmatch("[1-9][0-9]{0,8}", value):
        raise DataError(f"option {name}: expected a whole number from 1, found {value!r}")
    return int(value)


def question_about(source: Source, default: str, label: str) -> str:
    """The option ``question`` with a class name, spoken as words, in the place of ``{label}``.

    Raises:
        DataError: the option has no such place.
    """
    template = source.options.get("question", default)
    if "{label}" not in template:
        raise DataError(f"option question: expected a text with {{label}} in it, found {template!r}")
    return template.replace("{label}", label.replace("_", " ").replace("-", " "))
