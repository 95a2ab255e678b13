"""File reads and atomic, durable writes, with a `DataError` that names the file."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

import xxhash

from geovlm_ray.core.errors import DataError

log = logging.getLogger(__name__)

MAX_BYTES = 64 * 2**20
"""Limit of a text file that is read at once, and of a line of JSON Lines: their values take many times that memory."""


def check_plain(path: Path) -> None:
    """Raise DataError unless the path leads to a regular file; others, such as pipes and devices, may never end."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "a pipe, socket or device" if path.exists() else "a broken link"
        raise DataError(f"{path}: expected a file, found {found if os.path.lexists(path) else 'none'}")


def open_plain(path: Path) -> BufferedReader:
    """Open a regular file for reading; raises DataError for others, as `check_plain` does."""
    check_plain(path)
    return path.open("rb")


def read_text(path: Path) -> str:
    """Read a text file, without a byte order mark; raises DataError if it is no file, too large or not UTF-8."""
    with open_plain(path) as file:
        content = file.read(MAX_BYTES + 1)
    _check_size(content, str(path))
    return _decoded(content, str(path))


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that contains a single JSON object; raises DataError if it does not."""
    return parse_object(read_text(path), str(path))


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a text file, blank ones included; bytes that are not UTF-8 become lone surrogates.

    Raises:
        DataError: there is no file, or a line is longer than `MAX_BYTES`.
    """
    with open_plain(path) as file:
        for number in itertools.count(1):
            line = file.readline(MAX_BYTES + 1)
            if not line:
                return
            _check_size(line, f"{path}, line {number}")
            yield line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")


def read_objects(path: Path) -> list[dict[str, Any]]:
    """Read a JSON Lines file; a last line that a killed writer did not finish is left out, with a warning.

    Raises:
        DataError: another line is not a JSON object.
    """
    objects: list[dict[str, Any]] = []
    with open_plain(path) as file:
        while line := file.readline(MAX_BYTES + 1):
            where = f"{path}, line {len(objects) + 1}"
            _check_size(line, where)
            try:
                objects.append(parse_object(_decoded(line, where), where))
            except DataError:
                if line.endswith(b"\n"):
                    raise
                log.warning("%s is incomplete, as after a kill or a power failure, and left out", where)
    return objects


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
    where = f"{path}, last line"
    return parse_object(_decoded(lines[-1], where), where) if lines else None


def parse_object(text: str, where: str) -> dict[str, Any]:
    """The JSON object that a text is; raises DataError, whose message begins with ``where``, if it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: expected a JSON object, found no JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def write_atomically(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write to a temporary file, then `os.replace`; lone surrogates are written as in JSON, ``\\udc80``.

    After a power failure, a ``durable`` file has its old or its new content; others may be torn.

    Raises:
        DataError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError("it is a directory")
        try:
            with partial.open("wb") as file:
                file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


def digest_of(files: Iterable[Path]) -> str:
    """64-bit XXH3 hex digest of the concatenated contents of regular files, in path order.

    Raises:
        DataError: a path leads to no regular file.
    """
    digest = xxhash.xxh3_64()
    for file in sorted(files):
        with open_plain(file) as stream:
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


def _check_size(content: bytes, where: str) -> None:
    if len(content) > MAX_BYTES:
        raise DataError(f"{where}: expected at most {MAX_BYTES // 2**20} MiB, found more")


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: expected UTF-8 text, found byte {content[error.start]:#x}") from error
