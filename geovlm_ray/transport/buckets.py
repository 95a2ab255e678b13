"""Weight-sync transport from the learner to the engines: checksummed buckets of one weight version."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xxhash

from geovlm_ray.core.errors import RunError

BUCKET_BYTES = 2**27
"""Size at which a bucket is closed, so that sending overlaps with packing."""


@dataclass(frozen=True)
class WeightBucket:
    """A subset of the tensors of one weight version.

    ``number`` counts from 0; ``last`` marks the highest. ``arrays`` maps tensor names to NumPy arrays that Ray can
    share without a copy (bf16 as uint16); ``dtypes`` holds the original torch dtypes. ``adapter`` is None for full or
    merged model weights under their Hugging Face names, or the PEFT configuration of the LoRA adapter.
    """

    version: int
    number: int
    last: bool
    arrays: Mapping[str, np.ndarray]
    dtypes: Mapping[str, str]
    checksum: int
    adapter: Mapping[str, Any] | None = None

    @property
    def nbytes(self) -> int:
        """Total size of the arrays in bytes."""
        return sum(a.nbytes for a in self.arrays.values())

    def verify(self) -> None:
        """Check the received bytes against the sender's checksum.

        Raises:
            RunError: The checksums differ.
        """
        found = checksum(self.version, self.arrays)
        if found != self.checksum:
            raise RunError(
                f"weights of version {self.version}, bucket {self.number}: expected checksum {self.checksum:016x}, "
                f"found {found:016x}"
            )

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Named tensors that share the bucket's memory; read-only."""
        for name, array in self.arrays.items():
            with warnings.catch_warnings(action="ignore", category=UserWarning):
                tensor = torch.from_numpy(array)
            yield name, tensor.view(getattr(torch, self.dtypes[name]))


def pack(
    version: int,
    tensors: Iterable[tuple[str, torch.Tensor]],
    adapter: Mapping[str, Any] | None = None,
    size: int = BUCKET_BYTES,
) -> Iterator[WeightBucket]:
    """Pack tensors from any device into buckets of about ``size`` bytes.

    CPU tensors are not copied: a bucket is valid until they are modified.
    """
    arrays: dict[str, np.ndarray] = {}
    dtypes: dict[str, str] = {}
    number = 0
    for name, tensor in tensors:
        if sum(array.nbytes for array in arrays.values()) >= size:
            yield WeightBucket(version, number, False, arrays, dtypes, checksum(version, arrays), adapter)
            number, arrays, dtypes = number + 1, {}, {}
        host = tensor.detach().cpu().contiguous()
        dtypes[name] = str(host.dtype).removeprefix("torch.")
        arrays[name] = (host.view(torch.uint16) if host.dtype == torch.bfloat16 else host).numpy()
    yield WeightBucket(version, number, True, arrays, dtypes, checksum(version, arrays), adapter)


def checksum(version: int, arrays: Mapping[str, np.ndarray]) -> int:
    """64-bit XXH3 over the version, then each array's name and bytes in name order."""
    digest = xxhash.xxh3_64(str(version).encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return digest.intdigest()


class Inbox:
    """Collects the buckets of a weight version, received in any order; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version = -1
        self._received: dict[int, WeightBucket] = {}

    def put(self, bucket: WeightBucket) -> Sequence[WeightBucket] | None:
        """Verify and store a bucket; returns all buckets of its version once complete, else None.

        An incomplete version is discarded when the first bucket of a later one arrives.

        Raises:
            RunError: The checksum differs, or the bucket belongs to an older version than the current one.
        """
        bucket.verify()
        with self._lock:
            if bucket.version < self._version:
                raise RunError(f"weights of version {bucket.version} arrived after those of version {self._version}")
            if bucket.version > self._version:
                self._version, self._received = bucket.version, {}
            self._received[bucket.number] = bucket
            buckets = [self._received[number] for number in sorted(self._received)]
            if not buckets[-1].last or len(buckets) <= buckets[-1].number:
                return None
            self._received = {}
            return buckets


def prefetch_buckets(buckets: Iterator[WeightBucket]) -> Iterator[WeightBucket]:
    """Yield the buckets, packing the next one in a thread while the current one is sent."""
    with ThreadPoolExecutor(1) as packer:
        pending = packer.submit(next, buckets, None)
        while (bucket := pending.result()) is not None:
            pending = packer.submit(next, buckets, None)
            yield bucket
