"""Reading and writing files: one clear error each, and nothing left half written by a killed process."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

from geovlm_ray.core.errors import DataError

BLOCK_BYTES = 2**22


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        DataError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text, found byte {error.object[error.start]:#x}") from error


def read_object(path: Path) -> dict[str, Any]:
    """A file's one JSON object.

    Raises:
        DataError: it holds something else.
    """
    return _object(read_text(path), str(path))


def read_objects(path: Path) -> list[dict[str, Any]]:
    """A file of JSON objects, one a line; a last line without an end, which a killed process leaves, is passed over.

    Raises:
        DataError: a line holds something else.
    """
    lines = read_text(path).splitlines(keepends=True)
    return [_object(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.endswith("\n")]


def last_object(path: Path, within: int = 2**18) -> dict[str, Any] | None:
    """The last whole line of a file of JSON objects, of which only the last bytes are read; None where there is none.

    Raises:
        DataError: the line holds something else.
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - within, 0))
        lines = [line for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]
    return _object(lines[-1].decode(), f"{path}, last line") if lines else None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file in one step.

    Raises:
        DataError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError("it is a directory")
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(partial, path)


def digest_of(files: Iterable[Path]) -> str:
    """XXH3 (64 bits) of what files hold, one after the other in the order of their names."""
    digest = xxhash.xxh3_64()
    for file in sorted(files):
        with file.open("rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def grant_umask_access(folder: Path) -> None:
    """Let all whom the umask admits read the files of a folder; those of weights are written for their owner alone.

    Raises:
        OSError: it cannot be changed.
    """
    status = Path("/proc/self/status").read_text()
    hidden = int(next(line for line in status.splitlines() if line.startswith("Umask:")).split()[1], 8)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~hidden)


UNDONE = "undone"
"""Folder of what belongs to steps that a learner made which was then lost with them; those steps were made again."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Write a file within.

    Raises:
        DataError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error


def move_aside(path: Path, folder: Path) -> None:
    """Move a file or folder into a folder under a name that is free there."""
    folder.mkdir(exist_ok=True)
    names = (folder / f"{path.stem}-{n}{path.suffix}" for n in itertools.count(1))
    path.rename(next(name for name in names if not name.exists()))


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: expected a JSON object, found no JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value
