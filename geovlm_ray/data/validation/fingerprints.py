"""64-bit fingerprints of texts, files and images, for duplicate detection over millions of records in little memory.

Two different texts have equal fingerprints with probability 5e-20; ten million texts contain a collision with
probability 3e-6.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.fft import dctn

from geovlm_ray.core.files import digest_of

THUMBNAIL_SIDE = 32
"""Side in pixels of the greyscale thumbnail that is hashed."""
FREQUENCIES = 8
"""Number of lowest DCT frequencies per axis in the hash."""
MIN_STD = 4.0
"""Minimum standard deviation of the thumbnail in grey levels (of 256); flatter images are not hashed."""
MAX_HAMMING = 4
"""Maximum Hamming distance (of 64 bits) between the hashes of near-duplicate images."""
MAX_PAIRS = 2_000_000
"""Maximum number of pairs compared at once, which bounds memory."""


def text_key(*parts: str) -> int:
    """Fingerprint of a sequence of texts; never 0."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return int.from_bytes(digest.digest(), "little") or 1


def file_key(path: Path) -> int:
    """Fingerprint of a file's bytes; never 0."""
    return int(digest_of([path]), 16) or 1


def perceptual_hash(image: Image.Image) -> int:
    """Perceptual hash (pHash) of an image: which of the 64 lowest DCT coefficients of a greyscale thumbnail exceed
    their median. Source: Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010.

    0 for a nearly flat thumbnail, such as open sea, cloud or nodata: its bits would be noise, and different places
    would match. For 99% of aerial and satellite images, JPEG compression, resizing and moderate brightness changes flip
    at most `MAX_HAMMING` bits.
    """
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    grey = np.asarray(image.convert("L").resize(size, Image.Resampling.BOX), dtype=np.float64)
    if grey.std() < MIN_STD:
        return 0
    coefficients = dctn(grey, norm="ortho")[:FREQUENCIES, :FREQUENCIES].ravel()
    return int(np.packbits(coefficients > np.median(coefficients[1:])).view(np.uint64)[0])


def near_duplicates(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each hash, the index of one in ``others`` within `MAX_HAMMING` bits, or -1; [n], [m] to [n].

    If two hashes differ in at most `MAX_HAMMING` bits, they agree in at least one of `MAX_HAMMING` + 1 bands of bits,
    so only hashes that share a band are compared. The hash 0 matches nothing.
    """
    distinct, inverse = np.unique(hashes, return_inverse=True)
    candidates, indices = np.unique(others, return_index=True)
    candidates, indices = candidates[candidates != 0], indices[candidates != 0]
    matches = np.full(len(distinct), -1, dtype=np.int64)
    for band in np.array_split(np.arange(64, dtype=np.uint64), MAX_HAMMING + 1):
        unmatched = np.flatnonzero((matches < 0) & (distinct != 0))
        mask = np.bitwise_or.reduce(np.uint64(1) << band)
        order = np.argsort(candidates & mask, kind="stable")
        _match_band(distinct, unmatched, candidates[order], indices[order], mask, matches)
    return matches[inverse]


def _match_band(
    hashes: np.ndarray,
    unmatched: np.ndarray,
    candidates: np.ndarray,
    indices: np.ndarray,
    mask: np.uint64,
    matches: np.ndarray,
) -> None:
    """Set ``matches`` of the hashes at ``unmatched`` from candidates that agree under the mask, which sorts them."""
    bands = candidates & mask
    low = np.searchsorted(bands, hashes[unmatched] & mask, side="left")
    count = np.searchsorted(bands, hashes[unmatched] & mask, side="right") - low
    ends = np.cumsum(count)
    start = 0
    while start < len(unmatched):
        # At least one hash, and as many as fit into MAX_PAIRS pairs.
        before = ends[start] - count[start]
        stop = max(start + 1, int(np.searchsorted(ends, before + MAX_PAIRS, side="right")))
        left = np.repeat(np.arange(start, stop), count[start:stop])
        right = np.arange(len(left)) - np.repeat(ends[start:stop] - count[start:stop] - before, count[start:stop])
        right += low[left]
        near = np.bitwise_count(hashes[unmatched[left]] ^ candidates[right]) <= MAX_HAMMING
        matches[unmatched[left[near]]] = indices[right[near]]
        start = stop
