"""Weights on their way from the learner to the engines."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from geovlm_ray.errors import RunError


@dataclass(frozen=True)
class WeightUpdate:
    """One version of the policy's weights.

    ``arrays`` are in shared-memory form: bf16 as uint16, else their own type; ``dtypes`` says what each was.
    ``adapter`` is None for (merged or full) model weights under their Hugging Face names, else the PEFT
    configuration of the LoRA adapter whose weights these are.
    """

    version: int
    arrays: Mapping[str, np.ndarray]
    dtypes: Mapping[str, str]
    checksum: int
    adapter: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls, version: int, tensors: Mapping[str, torch.Tensor], adapter: Mapping[str, Any] | None = None
    ) -> WeightUpdate:
        """Pack tensors of any device."""
        arrays, dtypes = {}, {}
        for name, tensor in tensors.items():
            host = tensor.detach().cpu().contiguous()
            dtypes[name] = str(host.dtype).removeprefix("torch.")
            arrays[name] = (host.view(torch.uint16) if host.dtype == torch.bfloat16 else host).numpy()
        return cls(version, arrays, dtypes, checksum(arrays), adapter)

    @property
    def nbytes(self) -> int:
        """Size of all the weights in bytes."""
        return sum(a.nbytes for a in self.arrays.values())

    def tensors(self) -> dict[str, torch.Tensor]:
        """The weights as tensors, copied out of shared memory.

        Raises:
            RunError: the bytes are not those that the learner sent.
        """
        found = checksum(self.arrays)
        if found != self.checksum:
            raise RunError(f"weights of version {self.version}: expected checksum {self.checksum}, found {found}")
        return {
            name: torch.from_numpy(array.copy()).view(getattr(torch, self.dtypes[name]))
            for name, array in self.arrays.items()
        }


def checksum(arrays: Mapping[str, np.ndarray]) -> int:
    """CRC-32 over names and bytes, in the order of the names."""
    value = 0
    for name in sorted(arrays):
        value = zlib.crc32(name.encode(), value)
        value = zlib.crc32(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data, value)
    return value
