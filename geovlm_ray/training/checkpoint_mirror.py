"""Copies of a run's checkpoints anywhere that fsspec reaches: another disk, S3, GCS, HDFS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec

from geovlm_ray.core.errors import ConfigError, RunError


class CheckpointMirror:
    """A folder of checkpoints behind a URL; each is there once its last file is, for such places rename nothing."""

    def __init__(self, url: str, last_file: str) -> None:
        """``last_file`` is written after all others of a checkpoint, and removed before them.

        Raises:
            ConfigError: no file system is known for the URL.
        """
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"checkpoint.url: expected a URL that fsspec knows, found {url!r}: {error}") from error
        self.url = url
        self._last_file = last_file

    def put(self, folder: Path) -> None:
        """Copy a checkpoint.

        Raises:
            RunError: the other side refused it.
        """
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != self._last_file)
        with self._at(folder.name):
            for file in [*files, folder / self._last_file]:
                target = f"{self._root}/{folder.name}/{file.relative_to(folder).as_posix()}"
                self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(file), target)

    def names(self) -> list[str]:
        """Names of the checkpoints that are there.

        Raises:
            RunError: the other side does not say.
        """
        with self._at("*"):
            return sorted(path.split("/")[-2] for path in self._files.glob(f"{self._root}/*/{self._last_file}"))

    def fetch(self, name: str, folder: Path) -> None:
        """Copy a checkpoint into a folder, which is made.

        Raises:
            RunError: the other side refused it.
        """
        with self._at(name):
            root = f"{self._root}/{name}"
            for path in self._files.find(root):
                target = folder / path[path.index(f"{name}/") + len(name) + 1 :]
                target.parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(path, str(target))

    def remove(self, name: str) -> None:
        """Remove a checkpoint.

        Raises:
            RunError: the other side refused it.
        """
        with self._at(name):
            self._files.rm_file(f"{self._root}/{name}/{self._last_file}")
            self._files.rm(f"{self._root}/{name}", recursive=True)

    @contextmanager
    def _at(self, name: str) -> Iterator[None]:
        """Turn what a file system raises, each its own errors, into a RunError."""
        try:
            yield
        except Exception as error:
            raise RunError(f"checkpoint {self.url}/{name}: {type(error).__name__}: {error}") from error
