"""Folders of images by class, as UCMerced, AID and WHU-RS19 come: ``<class>/<image>``, with folders of splits or not.

The class is the folder that the image lies in, its name spelled as it is; what lies above may hold train, val or test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data.formats.base import Format, Source, Unit, image_reference
from geovlm_ray.data.formats.files import IMAGE_ENDINGS, SPLITS, folders, split_of_folder
from geovlm_ray.data.formats.streams import outside, relative
from geovlm_ray.data.table import Row


def units(source: Source) -> Iterator[Unit]:
    """Every image with all classes; folders are gone through twice, as the classes have to be known first.

    Raises:
        DataError: there is no image in the folder of a class.
    """
    classes = tuple(sorted({folder.name for folder, images in _images(source) if images and _is_class(folder, source)}))
    if not classes:
        raise DataError(f"{source.path}: expected images in folders by class, found none")
    for item in folders(source):
        if isinstance(item, Unit):
            yield item
            continue
        folder, files = item
        for path in (folder / name for name in files if _is_image(name)):
            if _is_class(folder, source):
                yield outside(path, source) or Unit(relative(path, source), 1, classes)
            else:
                problem = "expected an image in the folder of a class, found it above"
                yield Unit(relative(path, source), 1, problem=problem)


def convert(unit: Unit, source: Source) -> Iterable[Row]:
    """The record of an image."""
    path = source.folder / unit.file
    below = source.images if path.is_relative_to(source.images) else source.folder
    example = Example(
        id=unit.file,
        task="scene_classification",
        images=(image_reference(path.relative_to(below).as_posix()),),
        question=f"Which class does the scene belong to? Classes: {', '.join(unit.value)}.",
        target=(path.parent.name,),
        dataset=source.folder.resolve().name,
        split=split_of_folder(path.parent.parent, source),
        labels=unit.value,
    )
    yield Row(example)


def _images(source: Source) -> Iterator[tuple[Path, list[str]]]:
    for item in folders(source):
        if not isinstance(item, Unit):
            yield item[0], [name for name in item[1] if _is_image(name)]


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_ENDINGS)


def _is_class(folder: Path, source: Source) -> bool:
    """Whether a folder is that of a class: not the source itself, nor a split at its top."""
    return folder != source.path and not (folder.parent == source.path and folder.name.lower() in SPLITS)


FOLDERS = Format("image folders by class (UCMerced, AID, WHU-RS19): CLASS/IMAGE or SPLIT/CLASS/IMAGE", units, convert)
