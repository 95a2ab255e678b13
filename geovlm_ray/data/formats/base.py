"""What a format of the field has to say about itself, and helpers that formats share."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.table import Row


@dataclass(frozen=True)
class Source:
    """What is converted: a file or folder, the folder that image paths are relative to, and the format's options."""

    path: Path
    images: Path
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder that `Unit.file` is relative to."""
        return self.path if self.path.is_dir() else self.path.parent


@dataclass(frozen=True)
class Unit:
    """A piece of a source that is converted by itself: a line, a JSON object, a file.

    ``file`` is relative to the source's folder, ``number`` counts from 1 within it. ``value`` is whatever the format
    makes of it and must pickle. Where ``problem`` is set, the unit is set aside.
    """

    file: str
    number: int
    value: Any = None
    problem: str | None = None


@dataclass(frozen=True)
class Converted:
    """A record, and the files that have to be written for it below the output (path: content)."""

    row: Row
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """One format.

    ``units`` runs in the main process, reads in a stream and keeps to what is cheap. ``convert`` runs in worker
    processes; a DataError sets the unit aside, a unit with a problem among the results a part of it, an empty result
    passes it over (inactive entries, records without a reference). ``options`` are the names that ``key=value``
    arguments may have, with their defaults. ``stores_images`` says that images come out of the source into the output,
    or tells of which sources they do. ``header`` is what the source holds outside its records; ``restore`` writes rows
    back into a file of the format.
    """

    summary: str
    units: Callable[[Source], Iterator[Unit]]
    convert: Callable[[Unit, Source], Iterable[Row | Converted | Unit]]
    options: Mapping[str, str] = field(default_factory=dict)
    stores_images: bool | Callable[[Source], bool] = False
    header: Callable[[Source], Mapping[str, Any]] | None = None
    restore: Callable[[Iterator[Row], Mapping[str, Any], Path], None] | None = None

    def stores_images_of(self, source: Source) -> bool:
        """Whether the images of a source come out of it into the output."""
        return self.stores_images(source) if callable(self.stores_images) else self.stores_images


def image_reference(path: Any) -> str:
    """A record's image path in the one form in which it is stored: relative, with ``/``, within the root.

    Raises:
        DataError: it is no text, absolute, or leaves the root.
    """
    if not isinstance(path, str) or not path.strip():
        raise DataError(f"image: expected a path, found {shown(path)}")
    clean = posixpath.normpath(path.strip().replace("\\", "/"))
    if clean.startswith(("/", "../")) or clean in (".", "..") or ":" in clean.split("/", 1)[0] or "\x00" in clean:
        raise DataError(f"image: expected a path below the image root, found {shown(path)}")
    return clean


def field_of(record: Any, key: str, kind: type | tuple[type, ...] = str) -> Any:
    """The value of a key.

    Raises:
        DataError: the record is no object, or the key is absent or of another type.
    """
    if not isinstance(record, dict):
        raise DataError(f"expected an object, found {shown(record)}")
    value = record.get(key)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    if key not in record:
        raise DataError(f"expected the key {key!r}, found only {', '.join(map(repr, record)) or 'none'}"[:500])
    names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
    raise DataError(f"{key}: expected {names}, found {shown(value)}")


def question_words(prompt: str) -> str:
    """A prompt's words alone: no image placeholders; the two characters backslash and n, which some datasets store
    for a line end, are white space.
    """
    return " ".join(prompt.replace("<image>", " ").replace("<video>", " ").replace("\\n", " ").split())


def shown(value: Any) -> str:
    """A value in an error message."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
