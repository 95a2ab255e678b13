"""Lists of splits: text files ``train.txt``, ``test.txt``, ``uc_merced-val.txt``, ... that name a dataset's files.

Those of DIOR-RSVG (ZhanYang-nwpu/RSVG-pytorch, data_loader.py) number its objects instead, which are counted from 0
over the XML files in the order of their names.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.formats.base import Source, Unit
from geovlm_ray.data.formats.files import split_from_name
from geovlm_ray.data.formats.streams import external_link, lines, relative

UNLISTED = "unlisted"
"""Split of the files that no list names."""
MAX_NAME_CHARS = 1_000
"""A file with a longer line is no list of files."""
_TRAINVAL = re.compile(r"train[_-]?val(?![a-z])", re.IGNORECASE)
_LABEL = re.compile(r"[\s,;]+-?\d+$")
_NUMBER = re.compile(r"0|[1-9]\d{0,8}", re.ASCII)
_ANNOTATION = re.compile(r"\s-?\d+(?:\.\d+)?\s+-?\d")


@dataclass
class SplitLists:
    """The split of each listed file, by its path, its name and its name without ending."""

    by_key: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def of(self, file: str) -> str:
        """The split of a file, given relative to the source; `UNLISTED` if no list names it."""
        return next((self.by_key[key] for key in _keys(file) if key in self.by_key), UNLISTED)

    def are_numbers(self, files: Iterable[str]) -> bool:
        """Whether the lists hold numbers, most of which are not the name of any of the files."""
        named = len(self.by_key.keys() & {PurePosixPath(file).stem for file in files})
        return 2 * named < len(self.by_key) and all(map(_NUMBER.fullmatch, self.by_key))

    def of_objects(self, counts: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
        """The splits of the objects of each file, if the lists number the objects; ``counts`` are those of the files.

        Raises:
            DataError: the lists are of another number of objects.
        """
        total, listed = sum(counts.values()), max(map(int, self.by_key)) + 1
        if listed > total or listed == len(self.by_key) != total:
            raise DataError(
                f"{', '.join(self.names)}: expected numbers of the {total} objects of {len(counts)} XML files, found "
                f"numbers up to {listed - 1}; give all XML files of the dataset and no others, or lists of their names"
            )
        numbers = itertools.count()
        return {
            file: tuple(self.by_key.get(str(next(numbers)), UNLISTED) for _ in range(count))
            for file, count in counts.items()
        }


def keys_of(file: str) -> set[str]:
    """The names by which a list can name a file."""
    return set(_keys(file))


def _keys(file: str) -> Iterator[str]:
    """The path of a file from every folder above it, longest first, then the same without its ending."""
    parts = PurePosixPath(file).parts
    paths = [PurePosixPath(*parts[i:]) for i in range(len(parts))]
    yield from (path.as_posix() for path in (*paths, *(path.with_suffix("") for path in paths)))


def split_lists(source: Source) -> SplitLists | None:
    """The lists of a source's folder; None if it has none.

    A list ``trainval`` gives the split train to the files that no other list names.

    Raises:
        DataError: two lists give a file different splits.
    """
    lists = SplitLists()
    for path in sorted(_list_files(source), key=_is_trainval):
        split = "train" if _is_trainval(path) else split_from_name(path.stem, "")
        names = list(_listed(path, source))
        if not split or not names:
            continue
        lists.names.append(relative(path, source))
        for name in names:
            if lists.by_key.setdefault(name, split) != split and not _is_trainval(path):
                raise DataError(
                    f"{path}: expected each file in the list of one split, found {name!r} also in that of "
                    f"{lists.by_key[name]}"
                )
    return lists if lists.names else None


def _list_files(source: Source) -> Iterator[Path]:
    """Text files at the top of the source whose names contain a split, without links out of it."""
    if not source.path.is_dir():
        return
    patterns = ["*.txt", "splits/*.txt", "split/*.txt", "ImageSets/*.txt", "ImageSets/*/*.txt", "Main/*.txt"]
    for path in sorted({p for pattern in patterns for p in source.path.glob(pattern)}):
        if path.is_file() and external_link(path, source) is None and _names_split(path):
            yield path


def _names_split(path: Path) -> bool:
    return _is_trainval(path) or bool(split_from_name(path.stem, ""))


def _is_trainval(path: Path) -> bool:
    return bool(_TRAINVAL.search(path.stem))


def _listed(path: Path, source: Source) -> Iterator[str]:
    """The files that a list names, without class numbers after them; nothing if a line is no name."""
    for line in lines(path, source):
        text = "" if line.problem else str(line.value).strip()
        if line.problem or len(text) > MAX_NAME_CHARS or _ANNOTATION.search(text):
            return
        if text:
            yield _LABEL.sub("", text).strip().removeprefix("./").replace("\\", "/")


def missing_files(lists: SplitLists, found: set[str]) -> Iterator[Unit]:
    """A unit with a problem for each listed file that is not among the keys of the found ones."""
    for name, split in lists.by_key.items():
        if name not in found:
            yield Unit(lists.names[0], 1, name, f"list of {split}: expected the file {name!r}, found none")
