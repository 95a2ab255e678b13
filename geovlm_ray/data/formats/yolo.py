"""YOLO labels (Ultralytics; docs.ultralytics.com/datasets): one referred detection per image and class.

One text file per image with lines ``class x y width height`` (centre and size), ``class x1 y1 ... x4 y4`` (oriented
boxes), or ``class`` and more corners (segments, read as their envelope), in fractions of the image. The names of the
classes are in ``data.yaml``, ``classes.txt`` or the option ``names``. ``data.yaml``, the folders or the file lists that
it names determine the splits. Boxes are stored in pixels, because a rotated rectangle is one only in pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.core.files import read_text
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example
from geovlm_ray.core.yaml_text import parse_yaml
from geovlm_ray.data.formats.base import Format, Source, Unit, short_repr
from geovlm_ray.data.formats.files import normalize_split
from geovlm_ray.data.formats.objects import (
    OPTIONS,
    check_inside,
    check_options,
    class_rows,
    image_of_labels,
    pixel_frame,
    quad_box,
)
from geovlm_ray.data.formats.record_fields import split_of_file
from geovlm_ray.data.formats.split_lists import UNLISTED, SplitLists
from geovlm_ray.data.formats.streams import external_link, file_units, lines, relative
from geovlm_ray.data.table import Row

CONFIGS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
CLASS_FILES = ("classes.txt", "obj.names", "classes.names")
SPLIT_KEYS = ("train", "val", "test")
MAX_INVALID_LINES = 1_000
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?", re.ASCII)
_CLASS = re.compile(r"\d{1,6}", re.ASCII)


@dataclass(frozen=True)
class YoloConfig:
    """What a YOLO dataset says besides its labels: the classes by number, and the folders and lists of its splits."""

    names: Mapping[int, str]
    folders: Mapping[str, str]
    lists: SplitLists


def units(source: Source) -> Iterator[Unit]:
    """The label files, without lists of images and of classes."""
    check_options(source)
    _dataset.cache_clear()
    dataset = dataset_of(source)
    if not dataset.names:
        raise DataError(
            f"{source.path}: expected the names of the classes in {CONFIGS[0]}, {CLASS_FILES[0]} or the option "
            "names=first,second,..., found none"
        )
    for unit in file_units(source, (".txt",)):
        if unit.file not in dataset.lists.names and Path(unit.file).name not in CLASS_FILES:
            yield unit


def convert(unit: Unit, source: Source) -> Iterable[Row | Unit]:
    """One record per class of a file, and a problem for each invalid line; none for an empty file."""
    path = Path(unit.value)
    dataset = dataset_of(source)
    content = [line for line in lines(path, source) if line.problem is not None or line.value.strip()]
    if not content and not source.with_empty:
        return
    image = image_of_labels(unit.file, source)
    frame = pixel_frame(image, source)
    boxes, bad, unclear = [], [], set()
    for line in content:
        try:
            if line.problem is not None:
                raise DataError(line.problem)
            boxes.append((_object(line.value, dataset.names, frame, source), False))
        except DataError as error:
            bad.append(replace(line, problem=f"line {line.number}: {error}"))
            unclear |= _class_of(str(line.value), dataset.names)
            if len(bad) > MAX_INVALID_LINES:
                raise DataError(f"expected a label file, found more than {MAX_INVALID_LINES} invalid lines") from error
    yield from bad
    common = Example(
        id=unit.file.removesuffix(path.suffix),
        task="referred_object_detection",
        images=(image,),
        question="",
        target=(),
        dataset=source.folder.resolve().name,
        split=_split(unit.file, image, dataset, source),
        frame=frame,
        labels=tuple(dataset.names.values()),
    )
    if not content:
        yield Row(common, is_empty=True)
    yield from class_rows(common, boxes, source, unclear)


@lru_cache(maxsize=4)
def _dataset(folder: Path, names: str) -> YoloConfig:
    source = Source(folder, folder)
    config: Mapping[str, Any] = {}
    for name in CONFIGS:
        path = folder / name
        if path.is_file() and external_link(path, source) is None:
            config = _config(path)
            break
    given = dict(enumerate(name.strip() for name in names.split(",") if name.strip()))
    classes = given or _names(config.get("names")) or _class_file(folder, source)
    folders, lists = _splits(config, folder, source)
    return YoloConfig(classes, folders, lists)


def dataset_of(source: Source) -> YoloConfig:
    """The dataset of a source, whose files are at its top.

    Raises:
        DataError: a file is malformed.
    """
    return _dataset(source.folder, source.options.get("names", ""))


def _config(path: Path) -> Mapping[str, Any]:
    try:
        value = parse_yaml(read_text(path), str(path), variables=False)
    except ConfigError as error:
        raise DataError(str(error)) from error
    if not isinstance(value, Mapping):
        raise DataError(f"{path}: expected keys such as names and train, found {short_repr(value)}")
    return value


def _names(value: Any) -> dict[int, str]:
    """The classes by number, from a list or a mapping."""
    if value is None:
        return {}
    classes = dict(enumerate(value)) if isinstance(value, list) else value
    items = list(classes.items()) if isinstance(classes, dict) else []
    numbers = all(isinstance(number, int | str) and _CLASS.fullmatch(str(number)) for number, _ in items)
    texts = all(isinstance(name, str | int) and not isinstance(name, bool) and str(name).strip() for _, name in items)
    if not items or not numbers or not texts:
        raise DataError(f"names: expected the classes as a list or by number, found {short_repr(value)}")
    return {int(number): str(name).strip() for number, name in items}


def _class_file(folder: Path, source: Source) -> dict[int, str]:
    for path in (base / name for base in (folder, folder / "labels") for name in CLASS_FILES):
        if path.is_file() and external_link(path, source) is None:
            return dict(enumerate(str(line.value).strip() for line in lines(path, source) if str(line.value).strip()))
    return {}


def _splits(config: Mapping[str, Any], folder: Path, source: Source) -> tuple[dict[str, str], SplitLists]:
    """The split of each folder of images that a configuration names, and its lists of images."""
    folders: dict[str, str] = {}
    lists = SplitLists()
    for key in SPLIT_KEYS:
        value = config.get(key)
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, str) or not item.strip():
                continue
            clean = PurePosixPath(item.strip().replace("\\", "/").removeprefix("../").removeprefix("./"))
            path = folder / clean
            if clean.suffix == ".txt" and path.is_file() and external_link(path, source) is None:
                lists.names.append(relative(path, source))
                names = (PurePosixPath(str(line.value).strip().removeprefix("./")) for line in lines(path, source))
                lists.by_key.update((name.stem, normalize_split(key)) for name in names if name.stem)
            else:
                folders[clean.as_posix()] = normalize_split(key)
    return folders, lists


def _split(file: str, image: str, dataset: YoloConfig, source: Source) -> str:
    """The split of a label file: by the configuration's lists and folders of images, else by the names of folders."""
    if dataset.lists.names:
        return dataset.lists.by_key.get(PurePosixPath(image).stem, UNLISTED)
    below = [f for f in dataset.folders if f == "." or PurePosixPath(image).is_relative_to(f)]
    if len({dataset.folders[f] for f in below}) == 1:
        return dataset.folders[below[0]]
    return split_of_file(file, source)


def _class_of(line: str, names: Mapping[int, str]) -> set[str]:
    """The class that an invalid line names; all classes if it names none."""
    number = line.partition(" ")[0]
    return {names[int(number)]} if _CLASS.fullmatch(number) and int(number) in names else set(names.values())


def _object(line: str, names: Mapping[int, str], frame: Frame, source: Source) -> Box:
    """The box of a line, in pixels, with its class as label."""
    words = line.split()
    if len(words) < 5 or not all(map(_NUMBER.fullmatch, words)) or not _CLASS.fullmatch(words[0]):
        raise DataError(f"expected a class number and fractions of the image, found {short_repr(line)}")
    numbers = [float(word) for word in words[1:]]
    if len(numbers) == 5 or (len(numbers) > 4 and len(numbers) % 2):
        raise DataError(f"expected class x y width height or class x1 y1 ... x4 y4, found {len(words)} numbers")
    if max(map(abs, numbers)) > 2:
        raise DataError(f"expected fractions of the image, found {short_repr(line)}")
    if int(words[0]) not in names:
        raise DataError(f"expected a class number of {min(names)} to {max(names)}, found {words[0]}")
    name = names[int(words[0])]
    width, height = frame.scale
    if len(numbers) == 4:
        x, y, w, h = numbers
        fractions = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        box = Box(tuple(_pixels(v, width if i % 2 == 0 else height) for i, v in enumerate(fractions)), name)
    else:
        corners = [_pixels(v, width if i % 2 == 0 else height) for i, v in enumerate(numbers)]
        box = quad_box(corners, name, source)
    return check_inside(box, frame)


def _pixels(fraction: float, side: float) -> float:
    """A fraction of a side in pixels, without the rounding error of the multiplication."""
    return round(fraction * side, 4)


YOLO = Format(
    "YOLO labels: boxes and oriented boxes, one referred detection per image and class; names=first,second,...",
    units,
    convert,
    options={**OPTIONS, "names": ""},
)
