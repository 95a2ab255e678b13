"""Stream units from JSON and text files, in memory that does not grow with the file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.formats.base import Source, Unit, short_repr
from geovlm_ray.data.formats.json_members import MAX_RECORD_BYTES, json_members


def source_files(source: Source, endings: Sequence[str]) -> list[Path]:
    """The source itself if it is a file, else the files below it with one of the endings, sorted.

    Raises:
        DataError: no file matches.
    """
    if source.path.is_file():
        return [source.path]
    files = sorted(p for p in source.path.rglob("*") if p.suffix.lower() in endings and p.is_file())
    if not files:
        raise DataError(f"{source.path}: expected files that end in {' or '.join(endings)}, found none")
    return files


def relative(path: Path, source: Source) -> str:
    """A path relative to the source's folder, as in `Unit.file`."""
    return path.relative_to(source.folder).as_posix()


def external_link(path: Path, source: Source) -> Unit | None:
    """A unit with a problem for a symbolic link out of the source or to itself, which is never read; else None."""
    try:
        if path.resolve().is_relative_to(source.folder.resolve()):
            return None
    except (OSError, RuntimeError) as error:
        return Unit(relative(path, source), 1, problem=f"expected a file, found a symbolic link: {error}")
    return Unit(relative(path, source), 1, problem="expected a file inside the source, found a symbolic link out of it")


def json_units(source: Source, endings: Sequence[str] = (".json", ".jsonl")) -> Iterator[Unit]:
    """The records of each JSON or JSON lines file."""
    for path in source_files(source, endings):
        yield from json_records(path, source)


def json_records(path: Path, source: Source) -> Iterator[Unit]:
    """The items of a JSON array or of JSON lines; what cannot be read is a unit with a problem.

    A bad line loses only itself; a syntax error in an array loses everything after it.
    """
    if (link := external_link(path, source)) is not None:
        yield link
        return
    name = relative(path, source)
    with path.open("rb") as file:
        if file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
            yield from (unit for _, unit in json_members(path, name))
            return
        file.seek(0)
        for unit in _text_lines(file, name):
            if unit.problem is not None:
                yield unit
            elif unit.value.strip():
                yield _parsed(unit)


def lines(path: Path, source: Source) -> Iterator[Unit]:
    """The lines of a text file without line ends; one that is too long or not UTF-8 is a unit with a problem."""
    if (link := external_link(path, source)) is not None:
        yield link
        return
    with path.open("rb") as file:
        yield from _text_lines(file, relative(path, source))


def file_units(source: Source, endings: Sequence[str]) -> Iterator[Unit]:
    """The files of a source as units with the path as value; a link out of the source has a problem instead."""
    for path in source_files(source, endings):
        yield external_link(path, source) or Unit(relative(path, source), 1, str(path))


def read_single_object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object, of at most `MAX_RECORD_BYTES` bytes.

    Raises:
        DataError: the file is larger or holds something else.
    """
    if path.stat().st_size > MAX_RECORD_BYTES:
        raise DataError(f"expected a JSON object of at most {MAX_RECORD_BYTES} bytes, found {path.stat().st_size}")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"expected a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"expected a JSON object, found {short_repr(value)}")
    return value


def read_head(path: Path) -> str:
    """The first 4096 bytes of a file as text, to identify it in the quarantine."""
    with path.open("rb") as file:
        return file.read(4096).decode("utf-8", "replace")


def _parsed(unit: Unit) -> Unit:
    """The JSON value of a line."""
    try:
        value = json.loads(unit.value)
        if "\\u" in unit.value:
            # In a line decoded from UTF-8, only an escape can produce a lone surrogate.
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return replace(unit, value=None, problem="expected Unicode text, found a lone surrogate")
    except (ValueError, RecursionError) as error:
        problem = f"expected a JSON object: {error}; found {short_repr(unit.value)}"
        return replace(unit, value=None, problem=problem)
    return replace(unit, value=value)


def _text_lines(file: BinaryIO, name: str) -> Iterator[Unit]:
    number = 0
    while line := file.readline(MAX_RECORD_BYTES + 1):
        number += 1
        if len(line) > MAX_RECORD_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_RECORD_BYTES)
            yield Unit(name, number, problem=f"expected a line of at most {MAX_RECORD_BYTES} bytes, found a longer one")
            continue
        try:
            yield Unit(name, number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n"))
        except UnicodeDecodeError as error:
            yield Unit(name, number, problem=f"expected UTF-8 text, found byte {line[error.start]:#x}")
