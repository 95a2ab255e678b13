"""Mirror of a run's checkpoints on any fsspec file system: another disk, S3, GCS, HDFS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import fsspec

from geovlm_ray.core.errors import ConfigError, RunError
from geovlm_ray.core.files import write_atomically


class CheckpointMirror:
    """Checkpoints below a URL; one is complete once its last file exists, since object stores have no atomic rename.

    Raises:
        ConfigError: fsspec has no file system for the URL.
        RunError: the file system raised an error; all methods.
    """

    def __init__(self, url: str, last_file: str) -> None:
        """``last_file`` of a checkpoint is written after its other files and removed before them."""
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"checkpoint.url: expected a URL that fsspec supports, found {url!r}: {error}") from error
        self.url = url
        self._last_file = last_file

    def put(self, folder: Path) -> None:
        """Copy a checkpoint into the mirror; if that fails, what was copied is removed."""
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != self._last_file)
        with self._wrap_errors(folder.name):
            try:
                for file in [*files, folder / self._last_file]:
                    target = f"{self._root}/{folder.name}/{file.relative_to(folder).as_posix()}"
                    self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
                    self._files.put_file(str(file), target)
            except Exception:
                with suppress(Exception):
                    self._files.rm(f"{self._root}/{folder.name}", recursive=True)
                raise

    def put_file(self, file: Path) -> None:
        """Copy a file that belongs to no checkpoint into the mirror."""
        with self._wrap_errors(file.name):
            self._files.makedirs(self._root, exist_ok=True)
            partial = f"{self._root}/.{file.name}.partial"
            self._files.pipe_file(partial, file.read_bytes())
            self._files.mv(partial, f"{self._root}/{file.name}")

    def fetch_file(self, file: Path) -> None:
        """Copy a file from the mirror to ``file``, if the mirror has one of that name."""
        with self._wrap_errors(file.name):
            path = f"{self._root}/{file.name}"
            content = self._files.cat_file(path) if self._files.isfile(path) else None
        if content is not None:
            write_atomically(file, content)

    def names(self) -> list[str]:
        """Names of the complete checkpoints in the mirror."""
        with self._wrap_errors("*"):
            return sorted(path.split("/")[-2] for path in self._files.glob(f"{self._root}/*/{self._last_file}"))

    def fetch(self, name: str, folder: Path) -> None:
        """Copy a checkpoint from the mirror into ``folder``, which is created."""
        with self._wrap_errors(name):
            root = f"{self._root}/{name}"
            for path in self._files.find(root):
                below = PurePosixPath(path[path.index(f"{name}/") + len(name) + 1 :])
                if below.is_absolute() or ".." in below.parts:
                    raise ValueError(f"expected files of the checkpoint, found {path!r}, which leads out of its folder")
                target = folder / below
                target.parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(path, str(target))

    def remove(self, name: str) -> None:
        """Remove a checkpoint from the mirror."""
        with self._wrap_errors(name):
            self._files.rm_file(f"{self._root}/{name}/{self._last_file}")
            self._files.rm(f"{self._root}/{name}", recursive=True)

    @contextmanager
    def _wrap_errors(self, name: str) -> Iterator[None]:
        """Convert any error of a file system into a RunError; every fsspec backend raises its own types."""
        try:
            yield
        except Exception as error:
            raise RunError(f"checkpoint {self.url}/{name}: {type(error).__name__}: {error}") from error
