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
    """Each image, with all classes as value; walks the source twice, because the classes must be known first.

    Raises:
        DataError: no class folder has an image.
    """
    classes = tuple(sorted({folder.name for folder, images in _images(source) if images and _is_class(folder, source)}))
    if not classes:
        raise DataError(f"{source.path}: expected images in class folders, found none")
    for item in walk_folders(source):
        if isinstance(item, Unit):
            yield item
            continue
        folder, files = item
        for path in (folder / name for name in files if _is_image(name)):
            if _is_class(folder, source):
                yield external_link(path, source) or Unit(relative(path, source), 1, classes)
            else:
                problem = "expected an image in a class folder, found one above"
                yield Unit(relative(path, source), 1, problem=problem)


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


def _images(source: Source) -> Iterator[tuple[Path, list[str]]]:
    for item in walk_folders(source):
        if not isinstance(item, Unit):
            yield item[0], [name for name in item[1] if _is_image(name)]


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_ENDINGS)


def _is_class(folder: Path, source: Source) -> bool:
    """Whether a folder is a class: neither the source itself nor a split folder at its top level."""
    return folder != source.path and not (folder.parent == source.path and folder.name.lower() in SPLITS)


FOLDERS = Format("image folders by class (UCMerced, AID, WHU-RS19): CLASS/IMAGE or SPLIT/CLASS/IMAGE", units, convert)
