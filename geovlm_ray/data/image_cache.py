"""Disk cache of decoded images, shared by all processes of a node, with least-recently-used eviction.

The cache never fails a run: if its folder is unusable, every access decodes the image, and one warning is logged.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from geovlm_ray.data.images import SCENE_PREFIX, resolve
from geovlm_ray.data.scenes import drawing_version

logger = logging.getLogger(__name__)
GIB = 2**30
VERSION = 2
"""Part of every key; increment when the decoded pixels of an image file change."""
EVICT_TO = 0.9
"""Fraction of the size limit that eviction reduces the cache to."""
MAX_WRITERS = 16
"""Number of processes that can write concurrently without exceeding the limit; each may fill 1/16 of the free space."""


def open_cache(gigabytes: float) -> ImageCache | None:
    """Cache of the current user on this node with a limit in GiB; None for 0."""
    folder = Path(tempfile.gettempdir()) / f"geovlm-ray-images-{os.getuid()}"
    return ImageCache(folder, int(gigabytes * GIB)) if gigabytes else None


class ImageCache:
    """Arrays by key, stored as files shared between processes.

    A file's modification time is its last use. Each process tracks how many bytes it may still write before it scans
    the folder again.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._write_budget = 0
        self._checked = False
        self._warned = False

    def get(self, reference: str, recipe: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the cached array of an image file and recipe, or call ``make`` and store its result.

        The key includes the file's modification time and size. Of processes that request the same array at once, one
        calls ``make`` and the others wait.

        Raises:
            DataError: The image is absent. Exceptions of ``make`` are passed on.
        """
        name = f"{_key(reference, recipe)}.npy"
        array = self._read(name) if self._checked else None
        if array is None:
            with self._locked(name[:2]) as usable:
                array = self._read(name) if usable else None
                if array is None:
                    array = make()
                    if usable:
                        self._write(name, array)
        return array

    def _read(self, name: str) -> np.ndarray | None:
        path = self.folder / name
        try:
            # Memory mapping is no faster, as the whole array is read.
            array = np.load(path)
            os.utime(path)
            return array
        except (FileNotFoundError, ValueError, EOFError):
            # Absent or corrupt: the caller recreates it.
            return None
        except OSError as error:
            self._warn(error)
            return None

    def _write(self, name: str, array: np.ndarray) -> None:
        partial = self.folder / f"{name}.{os.getpid()}.partial"
        try:
            if array.nbytes > self._write_budget and not self._make_room(array.nbytes):
                return
            with partial.open("wb") as file:
                np.save(file, array)
            partial.replace(self.folder / name)
            self._write_budget -= array.nbytes
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            self._warn(error)

    def _make_room(self, size: int) -> bool:
        """Evict least recently used files if needed; False if an array of this size can never fit."""
        if size > EVICT_TO * self.limit:
            return False
        with self._locked("evict") as usable:
            if not usable:
                return False
            entries = sorted(self._entries())
            total = sum(file_size for _, file_size, _ in entries)
            if total + size > self.limit:
                for _, file_size, path in entries:
                    if total + size <= EVICT_TO * self.limit:
                        break
                    path.unlink(missing_ok=True)
                    total -= file_size
            self._write_budget = max(size, (self.limit - total) // MAX_WRITERS)
            return True

    def _entries(self) -> Iterator[tuple[int, int, Path]]:
        """Last use in nanoseconds, size in bytes and path of each file."""
        for entry in os.scandir(self.folder):
            # Another process may have renamed or removed it.
            with suppress(FileNotFoundError):
                if not entry.name.endswith(".lock"):
                    yield entry.stat().st_mtime_ns, entry.stat().st_size, Path(entry.path)

    @contextmanager
    def _locked(self, bucket: str) -> Iterator[bool]:
        """Hold an inter-process lock; yields False if the folder is unusable."""
        try:
            self._check_folder()
            file = (self.folder / f"{bucket}.lock").open("wb")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            self._warn(error)
            yield False
            return
        with file:
            yield True

    def _check_folder(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        status = self.folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise PermissionError("expected a folder owned by and accessible to this user only")
        self._checked = True

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("image cache %s is unusable, images are decoded on every access: %s", self.folder, error)


def _key(reference: str, recipe: str) -> str:
    """Hash of an image file's path, modification time and size, or of a scene and its drawing, and of the recipe."""
    identity = f"{reference}\0{drawing_version()}"
    if not reference.startswith(SCENE_PREFIX):
        path = resolve(reference)
        status = path.stat()
        identity = f"{path}\0{status.st_mtime_ns}\0{status.st_size}"
    return hashlib.sha256(os.fsencode(f"{VERSION}\0{identity}\0{recipe}")).hexdigest()
