"""Digests of what a run reads, kept with the run, so that it resumes on the same content or says what has changed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, TypeAdapter

from geovlm_ray.core.errors import DataError, RunError
from geovlm_ray.core.files import digest_of, read_object, text_digest, write_atomically
from geovlm_ray.core.validation import validated

log = logging.getLogger(__name__)

FILE = "contents.json"
Inputs = Mapping[str, Mapping[str, Path | str]]
"""What a run reads: {kind: {name: file, or a text that stands for it, such as a version}}."""
Digests = dict[str, dict[str, str]]
"""{kind: {name: digest of the file, or the text}}."""
NOTHING = "nothing"
ANNOUNCED_BYTES = 2**30
"""Bytes to read from which `ContentRecord.measure` announces itself."""
SETTLED_S = 2.0
"""Age of a file from which its time tells whether it has changed: file systems store times in steps of up to this."""
INSTALLED = ("node_modules", "site-packages")
MAX_MODULES = 2_000
MAX_MODULE_FOLDERS = 10_000
SHOWN = 20
"""Differences that an error message lists."""


class AcceptedChange(BaseModel):
    """Differences, by kind, with which a run was resumed after ``step``, or an evaluation; ``time`` is in UTC."""

    time: str
    step: int | None
    differences: dict[str, list[str]]

    @property
    def text(self) -> str:
        """Time, step and differences in one sentence."""
        step = "" if self.step is None else f", after step {self.step}"
        return f"{self.time}{step}: {'; '.join(_lines(self.differences))}"


class _Stored(BaseModel):
    contents: Digests = {}
    changes: list[AcceptedChange] = []
    cache: dict[str, tuple[str, str]] = {}
    """Stamp and digest of each file by path; a file with the same stamp is not read again."""


class ContentRecord:
    """A ``contents.json``: digests of what was read so far, and the changes that were accepted.

    Raises:
        DataError: the file has other content.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._stored = validated(TypeAdapter(_Stored), read_object(file) if file.is_file() else {}, file)

    @property
    def contents(self) -> Digests:
        """Digests by kind and name."""
        return self._stored.contents

    @property
    def changes(self) -> list[AcceptedChange]:
        """The accepted changes, oldest first."""
        return self._stored.changes

    def changed_after_start(self, kind: str) -> AcceptedChange | None:
        """The first accepted change of a kind after step 0."""
        return next((change for change in self.changes if change.step and kind in change.differences), None)

    def update(
        self,
        inputs: Inputs,
        *,
        accept: bool,
        step: int | None,
        description: str,
        remedy: str,
        announce: Callable[[str], None] = lambda text: None,
    ) -> AcceptedChange | None:
        """Compare inputs with the record and put them into it; returns the change that was accepted, if any.

        Only kinds in both are compared. `write` stores the record. ``description`` of its folder and ``remedy`` are for
        the error message; ``announce`` is told if much has to be read.

        Raises:
            RunError: a file has changed, is missing or new, and ``accept`` is false.
            DataError: a file cannot be read.
        """
        found = self.measure(inputs, announce)
        differences = self.differences(found, {_plain(kind): _plain(_root(named)) for kind, named in inputs.items()})
        lines, change = _lines(differences), None
        if lines and not accept:
            more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
            raise RunError(
                f"{description} {self.file.parent} was begun with other content: {'; '.join(lines[:SHOWN])}{more}; "
                f"restore it, {remedy}, or continue with --accept-changes, which is recorded in {self.file.name}"
            )
        if lines:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            change = AcceptedChange(time=now, step=step, differences=differences)
            self.changes.append(change)
        self.contents.update(found)
        return change

    def measure(self, inputs: Inputs, announce: Callable[[str], None] = lambda text: None) -> Digests:
        """Digests of inputs, reading only files that may have changed since they were read for this record.

        Raises:
            DataError: a file cannot be read.
        """
        files = {_key(v): v for named in inputs.values() for v in named.values() if isinstance(v, Path)}
        cache: dict[str, tuple[str, str]] = {}
        try:
            stamps = {key: _stamp(file) for key, file in files.items()}
            known = {key: entry for key, entry in self._stored.cache.items() if entry[0] == stamps.get(key)}
            size = sum(files[key].stat().st_size for key in files.keys() - known.keys())
            if size >= ANNOUNCED_BYTES:
                announce(f"Reading {size / 1e9:.1f} GB to identify the content of the files that are used ...")
            for key, file in files.items():
                cache[key] = known.get(key) or (stamps[key], f"xxh3:{digest_of([file])}")
        except OSError as error:
            raise DataError(f"{error.filename}: expected a readable file, found: {error.strerror}") from error
        self._stored.cache = {key: entry for key, entry in cache.items() if entry[0]}
        return {
            _plain(kind): {_plain(n): cache[_key(v)][1] if isinstance(v, Path) else v for n, v in named.items()}
            for kind, named in inputs.items()
        }

    def differences(self, found: Digests, roots: Mapping[str, str]) -> dict[str, list[str]]:
        """How the kinds in both ``found`` and the record differ; ``roots`` precede the names of a kind's files."""
        differences = {}
        for kind in sorted(self.contents.keys() & found.keys()):
            old, new = self.contents[kind], found[kind]
            changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
            if changed:
                differences[kind] = [
                    f"{roots[kind]}{name}: expected {old.get(name, NOTHING)}, found {new.get(name, NOTHING)}"
                    for name in changed
                ]
        return differences

    def write(self) -> None:
        """Write the file; raises DataError if it cannot be written."""
        write_atomically(self.file, self._stored.model_dump_json(indent=1) + "\n")


def python_files(file: Path) -> dict[str, Path]:
    """A Python file and what it may import from its folder: all modules in it and below it.

    Folders need no ``__init__.py`` for that. Hidden ones and installed packages are left out. Of more than
    `MAX_MODULES` modules or `MAX_MODULE_FOLDERS` folders, the first are returned, with a warning.
    """
    folder = file.parent
    modules: list[Path] = []
    visited: set[Path] = set()
    for top, subfolders, names in os.walk(folder, followlinks=True):
        here = Path(top)
        if len(modules) > MAX_MODULES or len(visited) > MAX_MODULE_FOLDERS:
            log.warning(
                "%s has more than %d modules or %d folders beside it; changes in those from %s on are not noticed",
                *(file, MAX_MODULES, MAX_MODULE_FOLDERS, here),
            )
            break
        visited.add(here.resolve())
        modules += [here / name for name in names if name.endswith(".py") and (here / name).is_file()]
        subfolders[:] = sorted(
            name
            for name in subfolders
            if not name.startswith((".", "__pycache__"))
            and name not in INSTALLED
            and not (here / name / "pyvenv.cfg").exists()
            and (here / name).resolve() not in visited
        )
    return {module.relative_to(folder).as_posix(): module for module in sorted(modules)}


def identifier(text: str) -> str:
    """What stands for a long text in `Inputs`: its digest, in the form of those of files."""
    return f"xxh3:{text_digest(text)}"


def _stamp(file: Path) -> str:
    """Size, times and inode of a file; empty if it was changed so recently that they may stay equal when it changes."""
    status = file.stat()
    if time.time() - status.st_mtime < SETTLED_S:
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _root(named: Mapping[str, Path | str]) -> str:
    """What precedes the names of files in their paths; empty if there is no file."""
    return next((str(value).removesuffix(name) for name, value in named.items() if isinstance(value, Path)), "")


def _key(file: Path) -> str:
    return _plain(str(file.absolute()))


def _plain(text: str) -> str:
    """A text without bytes that are not UTF-8, which file names may have and JSON may not."""
    return text.encode("utf-8", "backslashreplace").decode()


def _lines(differences: Mapping[str, list[str]]) -> list[str]:
    return [f"{kind} {text}" for kind, texts in differences.items() for text in texts]
