"""Weights on their way from the learner to the engines: a version of them in buckets, each with its checksum."""

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
"""Size at which a bucket is closed, so that the first ones are under way while the last are still packed."""


@dataclass(frozen=True)
class WeightBucket:
    """Some of the weights of one version of the policy.

    Buckets are numbered from 0; ``last`` marks the one with the highest number. ``arrays`` are in shared-memory form:
    bf16 as uint16, else their own type; ``dtypes`` says what each was. ``adapter`` is None for (merged or full) model
    weights under their Hugging Face names, else the PEFT configuration of the LoRA adapter whose weights these are.
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
        """Size of its weights in bytes."""
        return sum(a.nbytes for a in self.arrays.values())

    def verify(self) -> None:
        """Compare the bytes that arrived with those that were sent.

        Raises:
            RunError: they are others.
        """
        found = checksum(self.version, self.arrays)
        if found != self.checksum:
            raise RunError(
                f"weights of version {self.version}, bucket {self.number}: expected checksum {self.checksum:016x}, "
                f"found {found:016x}"
            )

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The weights as tensors on the bucket's own memory, which is not to be written to."""
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
    """Buckets of about ``size`` bytes with tensors of any device, each closed as soon as it is full.

    Tensors on the CPU are not copied: a bucket is valid until they change.
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
    """XXH3 (64 bits) over the version, and over names and bytes in the order of the names."""
    digest = xxhash.xxh3_64(str(version).encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return digest.intdigest()


class Inbox:
    """Where buckets arrive, in any order and from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version = -1
        self._held: dict[int, WeightBucket] = {}

    def put(self, bucket: WeightBucket) -> Sequence[WeightBucket] | None:
        """Verify and keep a bucket; returns all of its version once they are there.

        What is left of a version that never became whole goes when a later one begins.

        Raises:
            RunError: its bytes are not those that were sent, or it is of a version before the one that arrives.
        """
        bucket.verify()
        with self._lock:
            if bucket.version < self._version:
                raise RunError(f"weights of version {bucket.version} arrived after those of version {self._version}")
            if bucket.version > self._version:
                self._version, self._held = bucket.version, {}
            self._held[bucket.number] = bucket
            whole = [self._held[number] for number in sorted(self._held)]
            if not whole[-1].last or len(whole) <= whole[-1].number:
                return None
            self._held = {}
            return whole


def packed_ahead(buckets: Iterator[WeightBucket]) -> Iterator[WeightBucket]:
    """The same buckets, each packed while the one before it is sent."""
    with ThreadPoolExecutor(1) as packer:
        coming = packer.submit(next, buckets, None)
        while (bucket := coming.result()) is not None:
            coming = packer.submit(next, buckets, None)
            yield bucket
