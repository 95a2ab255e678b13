"""What validation keeps of all records, in a few numbers each, and what it finds by comparing them.

A record has a number, its place among the records of all datasets; so has an image, among the images of all records
(a picture that several records name has as many such numbers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np

from geovlm_ray.data.validation.fingerprints import nearest

PICTURE = np.dtype(
    [
        ("name", np.uint64),
        ("content", np.uint64),
        ("looks", np.uint64),
        ("width", np.int32),
        ("height", np.int32),
        ("fault", np.int32),
        ("absent", np.bool_),
    ]
)
"""A picture that was decoded: fingerprints of its path, bytes and looks (0: unknown), its size in pixels, the number
of what is wrong with it (0: nothing), and whether there is no such file."""


@dataclass(frozen=True)
class Entries:
    """Records in order: arrays of [n], ``images`` of [m].

    ``ids``, ``questions`` (with images and split) and ``answers`` (with question, task and target) are fingerprints,
    0 where there is nothing to compare. ``sizes`` [n, 2] is the frame in pixels of a record with boxes in pixels, else
    0. ``splits`` numbers the splits. ``counts`` says how many of the ``images``, fingerprints of references, are whose.
    """

    ids: np.ndarray
    questions: np.ndarray
    answers: np.ndarray
    sizes: np.ndarray
    splits: np.ndarray
    bad: np.ndarray
    counts: np.ndarray
    images: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Entries]) -> Entries:
        """Some entries after one another."""
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in cls.__dataclass_fields__))

    @cached_property
    def starts(self) -> np.ndarray:
        """Number of each record's first image, and behind the last one that of all; [n + 1]."""
        return np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)])

    @cached_property
    def owners(self) -> np.ndarray:
        """Number of each image's record, [m]."""
        return np.repeat(np.arange(len(self.ids)), self.counts)

    @cached_property
    def pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the images that are the first of their picture, [p], and every image's place in them, [m]."""
        _, first, inverse = np.unique(self.images, return_index=True, return_inverse=True)
        order = np.argsort(first)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return first[order], place[inverse]


def repeated(keys: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each key the place of the first equal one before it, or -1; only where ``among`` is true, and no 0."""
    places = np.flatnonzero(among & (keys != 0))
    order = places[np.argsort(keys[places], kind="stable")]
    new = np.ones(len(order), dtype=bool)
    new[1:] = keys[order[1:]] != keys[order[:-1]]
    first = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
    found = np.full(len(keys), -1, dtype=np.int64)
    found[order[~new]] = first[~new]
    return found


class Why(IntEnum):
    """What is wrong with a record."""

    NOTHING = 0
    RECORD = 1
    IMAGE = 2
    REPEATED = 3
    SHARED = 4
    ALIKE = 5


@dataclass(frozen=True)
class Faults:
    """For each record, [n]: `Why`; the number of the image at fault or -1; that of the record it agrees with or -1."""

    why: np.ndarray
    image: np.ndarray
    other: np.ndarray

    def mark(
        self, why: Why, records: np.ndarray, *, image: np.ndarray | int = -1, other: np.ndarray | int = -1
    ) -> None:
        """Note a fault of records that have none yet."""
        self.why[records] = why
        self.image[records] = image
        self.other[records] = other

    @property
    def good(self) -> np.ndarray:
        """Whether a record has no fault, [n]."""
        return self.why == Why.NOTHING


def find_faults(entries: Entries, pictures: np.ndarray, training: np.ndarray) -> Faults:
    """What is wrong with the records, given their pictures [p] in the order of `Entries.pictures`.

    A record has one fault, the first in the order of `Why`, and one that has a fault spoils no other. ``training``
    says, [n], whose split is trained on; of pictures shared with another split, its records are at fault.
    """
    n = len(entries.ids)
    faults = Faults(entries.bad.astype(np.uint8), np.full(n, -1, np.int64), np.full(n, -1, np.int64))
    _, place = entries.pictures
    broken = np.flatnonzero((pictures["fault"][place] > 0) & faults.good[entries.owners])
    records, first = np.unique(entries.owners[broken], return_index=True)
    faults.mark(Why.IMAGE, records, image=broken[first])
    earlier = repeated(entries.answers, faults.good)
    records = np.flatnonzero(earlier >= 0)
    faults.mark(Why.REPEATED, records, other=earlier[records])
    ours = np.flatnonzero((faults.good & training)[entries.owners])
    theirs = np.flatnonzero((faults.good & ~training)[entries.owners])
    found, alike = in_both(pictures[place[ours]], pictures[place[theirs]])
    for why, hits in ((Why.SHARED, (found >= 0) & ~alike), (Why.ALIKE, alike)):
        images, mates = ours[hits], theirs[found[hits]]
        records, first = np.unique(entries.owners[images], return_index=True)
        still = faults.good[records]
        records, first = records[still], first[still]
        faults.mark(why, records, image=images[first], other=entries.owners[mates[first]])
    return faults


def in_both(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of our pictures (`PICTURE`, [n]) the place of the same one in theirs [m], or -1; and, [n], whether it
    was found by its looks alone.

    The same is: of equal bytes; of the same name, where a file is absent; or of nearly the same looks.
    """
    known, places = np.unique(_identity(theirs), return_index=True)
    keys = _identity(ours)
    at = np.minimum(np.searchsorted(known, keys), max(len(known) - 1, 0))
    same = known[at] == keys if len(known) else np.zeros(len(keys), dtype=bool)
    found = np.where(same, places[at] if len(known) else -1, -1)
    rest = np.flatnonzero(~same)
    found[rest] = nearest(ours["looks"][rest], theirs["looks"])
    return found, ~same & (found >= 0)


def _identity(pictures: np.ndarray) -> np.ndarray:
    return np.where(pictures["content"] != 0, pictures["content"], pictures["name"])
