"""File reads and atomic writes, with a `DataError` that names the file."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

from geovlm_ray.core.errors import DataError


def read_text(path: Path) -> str:
    """Read a text file, without a byte order mark; raises DataError if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text, found byte {error.object[error.start]:#x}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that contains a single JSON object; raises DataError if it does not."""
    return _object(read_text(path), str(path))


def read_objects(path: Path) -> list[dict[str, Any]]:
    """Read a JSON Lines file, skipping an unterminated last line (left by a killed writer).

    Raises:
        DataError: a line is not a JSON object.
    """
    lines = read_text(path).splitlines(keepends=True)
    return [_object(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.endswith("\n")]


def last_object(path: Path, within: int = 2**18) -> dict[str, Any] | None:
    """Last complete line of a JSON Lines file, or None; reads at most the last ``within`` bytes.

    Raises:
        DataError: the line is not a JSON object.
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - within, 0))
        lines = [line for line in file.readlines() if line.endswith(b"\n")]
    return _object(lines[-1].decode(), f"{path}, last line") if lines else None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write to a temporary file, then `os.replace`; raises DataError if the file cannot be written."""
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError("it is a directory")
        try:
            partial.write_bytes(content.encode() if isinstance(content, str) else content)
            os.replace(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


def digest_of(files: Iterable[Path]) -> str:
    """64-bit XXH3 hex digest of the concatenated file contents, in path order."""
    digest = xxhash.xxh3_64()
    for file in sorted(files):
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()


def text_digest(text: str) -> str:
    """64-bit XXH3 hex digest of a text."""
    return xxhash.xxh3_64_hexdigest(text.encode("utf-8", "surrogateescape"))


def grant_umask_access(folder: Path) -> None:
    """Set the modes of all files in a folder to what the umask allows, since weight files are written owner-only.

    Raises:
        OSError: a mode cannot be changed.
    """
    status = Path("/proc/self/status").read_text()
    umask = int(next(line for line in status.splitlines() if line.startswith("Umask:")).split()[1], 8)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~umask)


UNDONE = "undone"
"""Folder for the outputs of steps that were rolled back when the learner was lost and then repeated."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert an OSError raised while writing ``path`` to a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error


def move_aside(path: Path, folder: Path) -> None:
    """Move a file or folder into ``folder`` under an unused name."""
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
