"""Captions in text files, one per line.

- Pairs of lists, as in VSE++ and remote-sensing retrieval (xiaoyuan1996/AMFMN): ``train_caps.txt`` and
  ``train_filename.txt``, with as many image names as captions, or one for each five.
- A text file beside each image: ``a.txt`` or ``a_caps.txt`` for ``a.png``.
- Change captions: ``a_caps.txt`` (or ``a.txt``) for an image pair ``A/a.png`` and ``B/a.png``, or ``a_A.png`` and
  ``a_B.png``, or ``a_before.png`` and ``a_after.png``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data.formats.base import Format, Source, Unit, image_reference
from geovlm_ray.data.formats.captions import COMPARE, DESCRIBE
from geovlm_ray.data.formats.files import IMAGE_ENDINGS, first_existing, image_exists
from geovlm_ray.data.formats.record_fields import split_of_file
from geovlm_ray.data.formats.streams import external_link, file_units, lines, relative
from geovlm_ray.data.table import Row

CAPS, FILENAMES = "_caps", "_filename"
CAPTIONS_PER_NAME = (1, 5)
MAX_LINES = 2_000_000
PAIR_FOLDERS = (("A", "B"), ("before", "after"), ("pre", "post"), ("im1", "im2"), ("t1", "t2"))
PAIR_ENDINGS = (("_A", "_B"), ("_before", "_after"), ("_pre", "_post"), ("_1", "_2"))
_NAME_FILES = ("{}_filename.txt", "{}_filenames.txt", "{}_ims.txt")


@dataclass(frozen=True)
class ListedImage:
    """An image of a pair of lists with its captions."""

    name: str
    captions: tuple[str, ...]


def units(source: Source) -> Iterator[Unit]:
    """Each image of pairs of lists, and each text file beside an image."""
    for unit in file_units(source, (".txt",)):
        path = source.folder / unit.file
        if unit.problem is None and path.stem.endswith(FILENAMES):
            continue
        names = _name_list(path) if unit.problem is None else None
        if names is None:
            yield unit
        else:
            yield from _listed(path, names, source)


def convert(unit: Unit, source: Source) -> Iterable[Row]:
    """The record of an image or image pair; none if it has no caption."""
    if isinstance(unit.value, ListedImage):
        captions = unit.value.captions
        images: tuple[str, ...] = (_listed_image(unit, source),)
        id = f"{unit.file}:{unit.number}"
    else:
        bad = [line for line in lines(Path(unit.value), source) if line.problem]
        if bad:
            raise DataError(f"line {bad[0].number}: {bad[0].problem}")
        captions = tuple(str(line.value).strip() for line in lines(Path(unit.value), source) if str(line.value).strip())
        images = _images_of(unit.file, source)
        id = unit.file.removesuffix(".txt")
    if not captions:
        return
    if not all(any(c.isalpha() for c in caption) for caption in captions):
        wrong = next(c for c in captions if not any(letter.isalpha() for letter in c))
        raise DataError(f"expected one caption per line, found {wrong[:120]!r}")
    yield Row(
        Example(
            id=id,
            task="change_captioning" if len(images) > 1 else "image_captioning",
            images=images,
            question=COMPARE if len(images) > 1 else DESCRIBE,
            target=tuple(dict.fromkeys(captions)),
            dataset=source.folder.resolve().name,
            split=split_of_file(unit.file, source),
        )
    )


def _name_list(captions: Path) -> Path | None:
    """The list of image names beside a list of captions."""
    if not captions.stem.endswith(CAPS):
        return None
    split = captions.stem.removesuffix(CAPS)
    paths = (captions.with_name(pattern.format(split)) for pattern in _NAME_FILES)
    return next((path for path in paths if path.is_file()), None)


def _listed(captions: Path, names: Path, source: Source) -> Iterator[Unit]:
    """The images of a pair of lists, with consecutive captions of one image together."""
    file = relative(captions, source)
    if (link := external_link(names, source)) is not None:
        yield link
        return
    texts = list(itertools.islice(lines(captions, source), MAX_LINES))
    images = list(itertools.islice(lines(names, source), MAX_LINES))
    while images and not images[-1].problem and not images[-1].value.strip():
        images.pop()
    each = next((n for n in CAPTIONS_PER_NAME if len(texts) == n * len(images)), None)
    if each is None:
        problem = f"expected one or five captions for each of {len(images)} names in {names.name}, found {len(texts)}"
        yield Unit(file, 1, problem=problem)
        return
    bad = next((line for line in (*texts, *images) if line.problem), None)
    if bad is not None:
        yield bad
        return
    rows = zip(range(len(texts)), texts, strict=True)
    for name, group in itertools.groupby(rows, key=lambda row: str(images[row[0] // each].value).strip()):
        members = list(group)
        yield Unit(
            file, members[0][0] + 1, ListedImage(name, tuple(t.value.strip() for _, t in members if t.value.strip()))
        )


def _listed_image(unit: Unit, source: Source) -> str:
    """The image of a pair of lists: in the folder of the list, or one of images in it."""
    name = image_reference(unit.value.name)
    folder = PurePosixPath(unit.file).parent
    inside = [p.name for p in sorted((source.folder / folder).iterdir()) if p.is_dir() and not p.is_symlink()]
    candidates = [image_reference((folder / part / name).as_posix()) for part in ("", *inside)]
    return first_existing(source, [*candidates, name])


def _images_of(file: str, source: Source) -> tuple[str, ...]:
    """The image, or the images before and after, of a text file.

    Raises:
        DataError: there is none.
    """
    path = PurePosixPath(file)
    stem = path.stem.removesuffix(CAPS)
    bases = list(
        dict.fromkeys([path.parent, path.parent.parent, path.parent / "images", path.parent.parent / "images"])
    )
    for base in bases:
        for before, after in PAIR_FOLDERS:
            if pair := _existing([base / before / stem, base / after / stem], source):
                return pair
        for before, after in PAIR_ENDINGS:
            if pair := _existing([base / f"{stem}{before}", base / f"{stem}{after}"], source):
                return pair
    for base in bases:
        if single := _existing([base / stem], source):
            return single
    raise DataError(f"expected an image {stem}.png (or .jpg, ...) beside the text file, found none")


def _existing(stems: list[PurePosixPath], source: Source) -> tuple[str, ...] | None:
    """The images with these paths without ending, if all exist."""
    found = []
    for stem in stems:
        names = [f"{stem.as_posix()}{e}" for ending in IMAGE_ENDINGS for e in (ending, ending.upper())]
        existing = next((name for name in names if image_exists(source, name)), None)
        if existing is None:
            return None
        found.append(image_reference(existing))
    return tuple(found)


CAPTION_FILES = Format(
    "captions in text files: *_caps.txt with *_filename.txt, or a text file beside each image or image pair",
    units,
    convert,
)
