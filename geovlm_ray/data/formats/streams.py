"""Streams of units out of JSON and text files, in memory that does not grow with the file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.formats.base import Source, Unit, shown
from geovlm_ray.data.formats.json_members import LONGEST_RECORD, json_members


def source_files(source: Source, endings: Sequence[str]) -> list[Path]:
    """The source itself where it is a file, else the files below it with one of the endings, in order.

    Raises:
        DataError: there is none.
    """
    if source.path.is_file():
        return [source.path]
    found = sorted(p for p in source.path.rglob("*") if p.suffix.lower() in endings and p.is_file())
    if not found:
        raise DataError(f"{source.path}: expected files that end in {' or '.join(endings)}, found none")
    return found


def relative(path: Path, source: Source) -> str:
    """A file's name relative to the source."""
    return path.relative_to(source.folder).as_posix()


def outside(path: Path, source: Source) -> Unit | None:
    """The unit that stands for a file whose link leads out of the source, which is never read."""
    if path.resolve().is_relative_to(source.folder.resolve()):
        return None
    return Unit(relative(path, source), 1, problem="the file is a link that leads out of the source")


def json_records(path: Path, source: Source) -> Iterator[Unit]:
    """The objects of a JSON array, or of JSON lines; what cannot be read is a unit with its problem.

    A bad line costs itself alone; a bad array everything from the fault on.
    """
    if (away := outside(path, source)) is not None:
        yield away
        return
    with path.open("rb") as file:
        if _first_byte(file) == b"[":
            yield from array_items(path, source, "item")
        else:
            yield from _json_lines(file, relative(path, source))


def array_items(path: Path, source: Source, prefix: str) -> Iterator[Unit]:
    """The members of the array at a prefix: ``item`` for a top-level array, ``images.item`` for that of a key."""
    key = prefix.removesuffix("item").removesuffix(".")
    for found, unit in json_members(path, relative(path, source), (key,)):
        if unit.problem is not None or (found == key and unit.number > 0):
            yield unit


def lines(path: Path, source: Source) -> Iterator[Unit]:
    """The lines of a text file, without their ends; one that is too long or no UTF-8 is a unit with its problem."""
    if (away := outside(path, source)) is not None:
        yield away
        return
    with path.open("rb") as file:
        yield from _text_lines(file, relative(path, source))


def file_units(source: Source, endings: Sequence[str]) -> Iterator[Unit]:
    """The files of a source as units, each with its absolute path as value; a link out of it has a problem instead."""
    for path in source_files(source, endings):
        yield outside(path, source) or Unit(relative(path, source), 1, str(path))


def read_object(path: Path) -> dict[str, Any]:
    """The one JSON object of a file of at most `LONGEST_RECORD` bytes.

    Raises:
        DataError: it holds something else.
    """
    if path.stat().st_size > LONGEST_RECORD:
        raise DataError(f"expected a JSON object of at most {LONGEST_RECORD} bytes, found {path.stat().st_size}")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"expected a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"expected a JSON object, found {shown(value)}")
    return value


def beginning(path: Path) -> str:
    """The beginning of a file as text, by which it is known again where it is set aside."""
    with path.open("rb") as file:
        return file.read(4096).decode("utf-8", "replace")


def _first_byte(file: BinaryIO) -> bytes:
    head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    file.seek(0)
    return head


def _json_lines(file: BinaryIO, name: str) -> Iterator[Unit]:
    for unit in _text_lines(file, name):
        if unit.problem is not None:
            yield unit
        elif unit.value.strip():
            yield _parsed(unit)


def _parsed(unit: Unit) -> Unit:
    try:
        value = json.loads(unit.value)
    except (ValueError, RecursionError) as error:
        return Unit(unit.file, unit.number, problem=f"expected a JSON object: {error}; found {shown(unit.value)}")
    # Only an escape can hide a lone surrogate in a line that was UTF-8.
    fine = "\\u" not in unit.value or _is_unicode(value)
    return Unit(unit.file, unit.number, value) if fine else _not_unicode(unit.file, unit.number)


def _text_lines(file: BinaryIO, name: str) -> Iterator[Unit]:
    number = 0
    while line := file.readline(LONGEST_RECORD + 1):
        number += 1
        if len(line) > LONGEST_RECORD:
            while line and not line.endswith(b"\n"):
                line = file.readline(LONGEST_RECORD)
            yield Unit(name, number, problem=f"a line longer than {LONGEST_RECORD} bytes")
            continue
        try:
            yield Unit(name, number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n"))
        except UnicodeDecodeError as error:
            yield Unit(name, number, problem=f"expected UTF-8 text, found byte {line[error.start]:#x}")


def _is_unicode(value: Any) -> bool:
    """Whether all texts in a JSON value can be written as UTF-8; an escaped lone surrogate cannot."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)
    if isinstance(value, dict):
        return all(map(_is_unicode, value)) and all(map(_is_unicode, value.values()))
    return all(map(_is_unicode, value)) if isinstance(value, list) else True


def _not_unicode(name: str, number: int) -> Unit:
    return Unit(name, number, problem="expected Unicode text, found a lone surrogate")
