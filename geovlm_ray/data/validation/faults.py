"""Cross-record checks: duplicate records, broken images, and images shared between training and other splits.

Records have a running index over all datasets; so have image references, in record order. An image that several
records reference has one image index per reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geovlm_ray.data.validation.fingerprints import near_duplicates

IMAGE_DTYPE = np.dtype(
    [
        ("name", np.uint64),
        ("content", np.uint64),
        ("phash", np.uint64),
        ("width", np.int32),
        ("height", np.int32),
        ("fault", np.int32),
        ("absent", np.bool_),
    ]
)
"""A decoded image: fingerprints of its path and bytes and its perceptual hash (0: unknown), its size in pixels, the
index of its fault message (0: no fault), and whether the file is absent."""


RECORD_DTYPE = np.dtype(
    [
        ("id", np.uint64),
        ("question", np.uint64),
        ("answer", np.uint64),
        ("size", np.float32, 2),
        ("split", np.int32),
        ("bad", np.bool_),
        ("images", np.int32),
    ]
)
"""A record, for comparisons: fingerprints of its id, of its question with images and split, and of the same with task,
target and reasoning (0 if there is nothing to compare); the size of its pixel frame if it has boxes in pixels, else 0;
the index of its split; whether it fails its own checks; and its number of image references."""


@dataclass(frozen=True)
class RecordSummaries:
    """Records (`RECORD_DTYPE`), [n], and the fingerprints of their image references, uint64 [m]."""

    records: np.ndarray
    images: np.ndarray

    @cached_property
    def starts(self) -> np.ndarray:
        """Index of each record's first image, followed by the number of images; [n + 1]."""
        return np.concatenate([[0], np.cumsum(self.records["images"], dtype=np.int64)])

    @cached_property
    def owners(self) -> np.ndarray:
        """Record index of each image, [m]."""
        return np.repeat(np.arange(len(self.records)), self.records["images"])

    @cached_property
    def unique_images(self) -> tuple[np.ndarray, np.ndarray]:
        """Image indices of the first reference to each unique image, [u], and each image's index into them, [m]."""
        _, first, inverse = np.unique(self.images, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        return first[order], rank[inverse]


def first_occurrences(keys: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each repeated key, the index of its first occurrence, else -1; [n].

    Only keys that are not 0 and for which ``among`` is true are compared.
    """
    indices = np.flatnonzero(among & (keys != 0))
    _, first, inverse = np.unique(keys[indices], return_index=True, return_inverse=True)
    earliest = indices[first[inverse]]
    result = np.full(len(keys), -1, dtype=np.int64)
    result[indices] = np.where(earliest < indices, earliest, -1)
    return result


class FaultKind(IntEnum):
    """Kind of a record's fault."""

    NONE = 0
    RECORD = 1
    """The record fails its own checks."""
    IMAGE = 2
    """An image is broken or absent."""
    DUPLICATE = 3
    """An earlier record is equal."""
    SHARED_IMAGE = 4
    """A record of another split has the same image."""
    SIMILAR_IMAGE = 5
    """A record of another split has a near-duplicate image."""


@dataclass(frozen=True)
class Faults:
    """Faults of n records, each [n]: `FaultKind`, index of the faulty image, and index of the matching record.

    The indices are -1 where they do not apply.
    """

    kind: np.ndarray
    image: np.ndarray
    other: np.ndarray

    def mark(
        self, kind: FaultKind, records: np.ndarray, *, image: np.ndarray | int = -1, other: np.ndarray | int = -1
    ) -> None:
        """Set the fault of records that have none yet."""
        self.kind[records] = kind
        self.image[records] = image
        self.other[records] = other

    @property
    def good(self) -> np.ndarray:
        """Whether a record has no fault, [n]."""
        return self.kind == FaultKind.NONE


def find_faults(summaries: RecordSummaries, images: np.ndarray, training: np.ndarray) -> Faults:
    """Find the fault of each of n records.

    ``images`` [u] are the unique images (`IMAGE_DTYPE`) in the order of `RecordSummaries.unique_images`; ``training``
    [n] says whether a record's split is used for training. A record has at most one fault, the first in the order of
    `FaultKind`; of images shared with another split, the training records are at fault. Faulty records are not compared
    with others.
    """
    n = len(summaries.records)
    faults = Faults(summaries.records["bad"].astype(np.uint8), np.full(n, -1, np.int64), np.full(n, -1, np.int64))
    _, unique = summaries.unique_images
    broken = np.flatnonzero((images["fault"][unique] > 0) & faults.good[summaries.owners])
    records, first = np.unique(summaries.owners[broken], return_index=True)
    faults.mark(FaultKind.IMAGE, records, image=broken[first])
    earlier = first_occurrences(summaries.records["answer"], faults.good)
    records = np.flatnonzero(earlier >= 0)
    faults.mark(FaultKind.DUPLICATE, records, other=earlier[records])
    train = np.flatnonzero((faults.good & training)[summaries.owners])
    held_out = np.flatnonzero((faults.good & ~training)[summaries.owners])
    matches, similar = match_images(images[unique[train]], images[unique[held_out]])
    for kind, hits in ((FaultKind.SHARED_IMAGE, (matches >= 0) & ~similar), (FaultKind.SIMILAR_IMAGE, similar)):
        train_images, held_out_images = train[hits], held_out[matches[hits]]
        records, first = np.unique(summaries.owners[train_images], return_index=True)
        still_good = faults.good[records]
        records, first = records[still_good], first[still_good]
        faults.mark(kind, records, image=train_images[first], other=summaries.owners[held_out_images[first]])
    return faults


def match_images(images: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Match ``images`` [n] to ``others`` [m], both of `IMAGE_DTYPE`.

    Returns the index of a matching image in ``others`` or -1, [n], and whether the match is only by perceptual hash,
    [n]. Images match if their bytes are equal, if their paths are equal and the file is absent, or if their perceptual
    hashes are near.
    """
    found = pc.index_in(pa.array(_identity(images)), pa.array(_identity(others)))
    matches = found.fill_null(-1).to_numpy().astype(np.int64)
    rest = np.flatnonzero(matches < 0)
    matches[rest] = near_duplicates(images["phash"][rest], others["phash"])
    similar = np.zeros(len(images), dtype=bool)
    similar[rest] = matches[rest] >= 0
    return matches, similar


def _identity(images: np.ndarray) -> np.ndarray:
    return np.where(images["content"] != 0, images["content"], images["name"])
