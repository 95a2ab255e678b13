"""Exclusive folder locks between processes."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geovlm_ray.core.errors import RunError

LOCK_TIMEOUT_S = 10.0
"""Seconds to wait for a lock: reader processes of a killed training run may hold it this long before they exit."""


@contextmanager
def locked(folder: Path, description: str, remedy: str) -> Iterator[None]:
    """Hold an exclusive lock on a folder; waits up to `LOCK_TIMEOUT_S` for it.

    Raises:
        RunError: another process holds it; the message contains ``description`` of the folder and ``remedy``.
    """
    with (folder / ".lock").open("w") as lock:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise RunError(f"{description} {folder} is in use by another process; {remedy}") from error
            time.sleep(0.2)
        yield
