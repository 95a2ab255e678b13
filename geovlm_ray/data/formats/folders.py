"""Image folders by class, as in UCMerced, AID and WHU-RS19: ``<class>/<image>``, optionally below split folders.

The class is the unchanged name of the image's folder; a folder above it may name the split (train, val or test), or
else lists at the top do: ``train.txt``, ``test.txt`` and the like, with a path, a name or a name without ending per
line. Files in none of the lists get the split ``unlisted``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data.formats.base import Format, Source, Unit, image_reference
from geovlm_ray.data.formats.files import IMAGE_ENDINGS, SPLITS, split_of_folder, walk_folders
from geovlm_ray.data.formats.split_lists import keys_of, missing_files, split_lists
from geovlm_ray.data.formats.streams import external_link, relative
from geovlm_ray.data.table import Row


@dataclass(frozen=True)
class ClassImage:
    """The classes of the dataset and the split of an image."""

    classes: tuple[str, ...]
    split: str


def units(source: Source) -> Iterator[Unit]:
    """Each image, with all classes as value; walks the source twice, because the classes must be known first."""
    images = (item for item in _images(source) if isinstance(item, Path))
    classes = tuple(sorted({path.parent.name for path in images if _is_class(path.parent, source)}))
    if not classes:
        raise DataError(f"{source.path}: expected images in class folders, found none")
    lists, listed = split_lists(source), set()
    for item in _images(source):
        if isinstance(item, Unit):
            yield item
        elif _is_class(item.parent, source):
            name = relative(item, source)
            listed |= keys_of(name) if lists else set()
            split = lists.of(name) if lists else split_of_folder(item.parent.parent, source)
            yield external_link(item, source) or Unit(name, 1, ClassImage(classes, split))
        else:
            yield Unit(relative(item, source), 1, problem="expected an image in a class folder, found one above")
    if lists:
        yield from missing_files(lists, listed)


def convert(unit: Unit, source: Source) -> Iterable[Row]:
    """The record of an image."""
    path = source.folder / unit.file
    root = source.images if path.is_relative_to(source.images) else source.folder
    example = Example(
        id=unit.file,
        task="scene_classification",
        images=(image_reference(path.relative_to(root).as_posix()),),
        question=f"Which class does the scene belong to? Classes: {', '.join(unit.value.classes)}.",
        target=(path.parent.name,),
        dataset=source.folder.resolve().name,
        split=unit.value.split,
        labels=unit.value.classes,
    )
    yield Row(example)


def _images(source: Source) -> Iterator[Path | Unit]:
    """The images, and the problems of `walk_folders`."""
    for item in walk_folders(source):
        if isinstance(item, Unit):
            yield item
        else:
            folder, names = item
            yield from (folder / name for name in names if name.lower().endswith(IMAGE_ENDINGS))


def _is_class(folder: Path, source: Source) -> bool:
    """Whether a folder is a class: neither the source itself nor a split folder at its top level."""
    return folder != source.path and not (folder.parent == source.path and folder.name.lower() in SPLITS)


FOLDERS = Format(
    "image folders by class (UCMerced, AID, WHU-RS19): CLASS/IMAGE or SPLIT/CLASS/IMAGE, or lists such as train.txt",
    units,
    convert,
)
