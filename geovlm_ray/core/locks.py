"""Folders that one process at a time may write to."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geovlm_ray.core.errors import RunError

ORPHANS_S = 10.0
"""Seconds in which the reader processes of a killed training notice that it is gone."""


@contextmanager
def locked(folder: Path, what: str, remedy: str) -> Iterator[None]:
    """Hold a folder for this process; waits `ORPHANS_S` for processes that one which was killed left behind.

    Raises:
        RunError: another process holds it; ``what`` the folder is and the ``remedy`` stand in the message.
    """
    with (folder / ".lock").open("w") as lock:
        end = time.monotonic() + ORPHANS_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= end:
                    raise RunError(f"{what} {folder} is in use by another process; {remedy}") from error
            time.sleep(0.2)
        yield
