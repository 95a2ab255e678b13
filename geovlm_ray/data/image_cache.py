"""Pictures that were decoded once on this node, for all its processes: files in one folder, the oldest of them evicted.

The cache never fails a run. Where its folder cannot be used, pictures are decoded anew each time, and a warning says
so once.
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

logger = logging.getLogger(__name__)
GIB = 2**30
VERSION = 1
"""Part of every key; raised with each change of what pictures look like."""
KEPT = 0.9
"""Share of the bound that eviction leaves."""
WRITERS = 16
"""So many processes may fill the room that one look at the folder finds before the bound is exceeded."""


def open_cache(gigabytes: float) -> ImageCache | None:
    """This user's cache on this node, bounded to so many GiB; None for 0."""
    folder = Path(tempfile.gettempdir()) / f"geovlm-ray-images-{os.getuid()}"
    return ImageCache(folder, int(gigabytes * GIB)) if gigabytes else None


class ImageCache:
    """Arrays under keys, in files that several processes share.

    A file's modification time is when it was last used. Each process counts for itself what it may still write before
    it looks at the folder again.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._room = 0
        self._checked = False
        self._warned = False

    def get(self, reference: str, recipe: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """What ``make`` returns for an image as it now is on disk, or what it returned before under the same recipe.

        Processes that ask for the same picture at the same time wait for the one that makes it.

        Raises:
            DataError: the image is absent. Whatever ``make`` raises.
        """
        name = f"{_key(reference, recipe)}.npy"
        found = self._read(name) if self._checked else None
        if found is not None:
            return found
        with self._locked(name[:2]) as usable:
            found = self._read(name) if usable else None
            if found is None:
                found = make()
                if usable:
                    self._write(name, found)
            return found

    def _read(self, name: str) -> np.ndarray | None:
        path = self.folder / name
        try:
            # Mapping into memory is no faster, as all of a picture is read anyway.
            array = np.load(path)
            os.utime(path)
            return array
        except (FileNotFoundError, ValueError, EOFError):
            # Absent or broken: it is made anew.
            return None
        except OSError as error:
            self._warn(error)
            return None

    def _write(self, name: str, array: np.ndarray) -> None:
        partial = self.folder / f"{name}.{os.getpid()}.partial"
        try:
            if array.nbytes > self._room and not self._make_room(array.nbytes):
                return
            with partial.open("wb") as file:
                np.save(file, array)
            partial.replace(self.folder / name)
            self._room -= array.nbytes
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            self._warn(error)

    def _make_room(self, size: int) -> bool:
        """Evict what was used longest ago if need be; False if an array of this size has no room at all."""
        if size > KEPT * self.limit:
            return False
        with self._locked("evict") as usable:
            if not usable:
                return False
            entries = sorted(self._entries())
            total = sum(taken for _, taken, _ in entries)
            if total + size > self.limit:
                for _, taken, path in entries:
                    if total + size <= KEPT * self.limit:
                        break
                    path.unlink(missing_ok=True)
                    total -= taken
            self._room = max(size, (self.limit - total) // WRITERS)
            return True

    def _entries(self) -> Iterator[tuple[int, int, Path]]:
        """When each file was last used, its size, and where it is."""
        for entry in os.scandir(self.folder):
            # Another process may have renamed or removed it by now.
            with suppress(FileNotFoundError):
                if not entry.name.endswith(".lock"):
                    yield entry.stat().st_mtime_ns, entry.stat().st_size, Path(entry.path)

    @contextmanager
    def _locked(self, bucket: str) -> Iterator[bool]:
        """Hold a lock that other processes see; False where the folder cannot be used."""
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
        found = self.folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError("expected a folder that is this user's alone")
        self._checked = True

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "images are decoded anew each time, as their cache %s cannot be used: %s", self.folder, error
            )


def _key(reference: str, recipe: str) -> str:
    """A name for an image as it now is and what is made of it."""
    identity = reference
    if not reference.startswith(SCENE_PREFIX):
        path = resolve(reference)
        found = path.stat()
        identity = f"{path}\0{found.st_mtime_ns}\0{found.st_size}"
    return hashlib.sha256(os.fsencode(f"{VERSION}\0{identity}\0{recipe}")).hexdigest()
