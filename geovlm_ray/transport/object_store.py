"""Weight transport through Ray's object store: checksummed buckets of host memory."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from geovlm_ray.core.errors import RunError
from geovlm_ray.transport.base import Transport, WeightUpdate

# Imported below where tensors are: the driver, which only forwards buckets, does not need torch.
if TYPE_CHECKING:
    import torch

BUCKET_BYTES = 2**27
"""Size at which a bucket is closed, so that sending overlaps with packing."""


@dataclass(frozen=True)
class WeightBucket:
    """A subset of the tensors of one weight version.

    ``number`` counts from 0; ``last`` marks the highest. ``arrays`` maps tensor names to NumPy arrays that Ray can
    share without a copy (bf16 as uint16); ``dtypes`` holds the original torch dtypes. ``adapter`` is that of the
    `WeightUpdate`.
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
        import torch

        for name, array in self.arrays.items():
            with warnings.catch_warnings(action="ignore", category=UserWarning):
                tensor = torch.from_numpy(array)
            yield name, tensor.view(getattr(torch, self.dtypes[name]))


class ObjectStore(Transport):
    """Sends buckets, of which Ray's object store holds one copy per node; in one process they are not copied."""

    replayable = True

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self._lock = threading.Lock()
        self._version = -1
        self._received: dict[int, WeightBucket] = {}

    def send(self, update: WeightUpdate, rank: int, ranks: int, endpoints: Sequence[Any]) -> Iterator[WeightBucket]:
        """Yield buckets on rank 0, packing the next one in a thread while the current one is sent."""
        if rank:
            deque(update.tensors, maxlen=0)
            return
        buckets = pack_buckets(update)
        with ThreadPoolExecutor(1) as packer:
            pending = packer.submit(next, buckets, None)
            while (bucket := pending.result()) is not None:
                pending = packer.submit(next, buckets, None)
                yield bucket

    def receive(self, chunk: WeightBucket) -> WeightUpdate | None:
        """Verify and keep a bucket, in any order; an incomplete version is discarded when a later one begins.

        Raises:
            RunError: The checksum differs, or the bucket belongs to an older version than the current one.
        """
        chunk.verify()
        with self._lock:
            if chunk.version < self._version:
                raise RunError(f"weights of version {chunk.version} arrived after those of version {self._version}")
            if chunk.version > self._version:
                self._version, self._received = chunk.version, {}
            self._received[chunk.number] = chunk
            buckets = [self._received[number] for number in sorted(self._received)]
            if not buckets[-1].last or len(buckets) <= buckets[-1].number:
                return None
            self._received = {}
        tensors = (pair for bucket in buckets for pair in bucket.tensors())
        return WeightUpdate(chunk.version, tensors, chunk.adapter)


def pack_buckets(update: WeightUpdate) -> Iterator[WeightBucket]:
    """Pack tensors from any device into buckets of about `BUCKET_BYTES`.

    CPU tensors are not copied: a bucket is valid until they are modified.
    """
    import torch

    arrays: dict[str, np.ndarray] = {}
    dtypes: dict[str, str] = {}
    number = 0

    def bucket(last: bool) -> WeightBucket:
        return WeightBucket(
            update.version, number, last, arrays, dtypes, checksum(update.version, arrays), update.adapter
        )

    for name, tensor in update.tensors:
        if sum(array.nbytes for array in arrays.values()) >= BUCKET_BYTES:
            yield bucket(last=False)
            number, arrays, dtypes = number + 1, {}, {}
        host = tensor.detach().cpu().contiguous()
        dtypes[name] = str(host.dtype).removeprefix("torch.")
        arrays[name] = (host.view(torch.uint16) if host.dtype == torch.bfloat16 else host).numpy()
    yield bucket(last=True)


def checksum(version: int, arrays: Mapping[str, np.ndarray]) -> int:
    """64-bit XXH3 over the version, then each array's name and bytes in name order."""
    digest = xxhash.xxh3_64(str(version).encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return digest.intdigest()
