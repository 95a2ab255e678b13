"""Folders that hold one run each: one process at a time writes there, and always with the same configuration."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from geovlm_ray.config import Config, flat, load_config
from geovlm_ray.errors import ConfigError, RunError

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


def check_same(config: Config, file: Path, may_change: Sequence[str], what: str, remedy: str) -> None:
    """Compare a configuration with the one that a folder's run began with, if ``file`` holds one.

    Raises:
        ConfigError: they differ in a key that is not among ``may_change``.
    """
    if not file.is_file():
        return
    old = flat(load_config(str(file)))
    new = flat(config)
    changed = [k for k in {**old, **new} if old.get(k) != new.get(k) and k not in may_change]
    if changed:
        key = changed[0]
        raise ConfigError(
            f"{what} {file.parent} holds a run with another configuration: {key} was {old.get(key)!r}, is now "
            f"{new.get(key)!r}{f' (and {len(changed) - 1} more keys)' if changed[1:] else ''}; {remedy}"
        )
