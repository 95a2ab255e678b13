"""Image folders by class, as in UCMerced, AID and WHU-RS19: ``<class>/<image>``, optionally below split folders.

The class is the unchanged name of the image's folder; a folder above it may name the split (train, val or test).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data.formats.base import Format, Source, Unit, image_reference
from geovlm_ray.data.formats.files import IMAGE_ENDINGS, SPLITS, split_of_folder, walk_folders
from geovlm_ray.data.formats.streams import external_link, relative
from geovlm_ray.data.table import Row


def units(source: Source) -> Iterator[Unit]:
    """Each image, with all classes as value; walks the source twice, because the classes must be known first."""
    images = (item for item in _images(source) if isinstance(item, Path))
    classes = tuple(sorted({path.parent.name for path in images if _is_class(path.parent, source)}))
    if not classes:
        raise DataError(f"{source.path}: expected images in class folders, found none")
    for item in _images(source):
        if isinstance(item, Unit):
            yield item
        elif _is_class(item.parent, source):
            yield external_link(item, source) or Unit(relative(item, source), 1, classes)
        else:
            yield Unit(relative(item, source), 1, problem="expected an image in a class folder, found one above")


def convert(unit: Unit, source: Source) -> Iterable[Row]:
    """The record of an image."""
    path = source.folder / unit.file
    root = source.images if path.is_relative_to(source.images) else source.folder
    example = Example(
        id=unit.file,
        task="scene_classification",
        images=(image_reference(path.relative_to(root).as_posix()),),
        question=f"Which class does the scene belong to? Classes: {', '.join(unit.value)}.",
        target=(path.parent.name,),
        dataset=source.folder.resolve().name,
        split=split_of_folder(path.parent.parent, source),
        labels=unit.value,
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


FOLDERS = Format("image folders by class (UCMerced, AID, WHU-RS19): CLASS/IMAGE or SPLIT/CLASS/IMAGE", units, convert)
