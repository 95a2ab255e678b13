"""The `Format` interface of dataset formats, and helpers that they share."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.records import field_of, short_repr  # noqa: F401 (formats use both)
from geovlm_ray.data.table import Row

_PLACEHOLDER = re.compile(r"(?:<image>|<video>)\s*")


@dataclass(frozen=True)
class Source:
    """A file or folder to convert, the folder that image paths are relative to, and the format's options.

    With ``with_empty``, formats of objects also yield rows with ``is_empty``, of pictures that are annotated as showing
    no object.
    """

    path: Path
    images: Path
    options: Mapping[str, str] = field(default_factory=dict)
    with_empty: bool = False

    @property
    def folder(self) -> Path:
        """The folder that `Unit.file` is relative to."""
        return self.path if self.path.is_dir() else self.path.parent


@dataclass(frozen=True)
class Unit:
    """The part of a source that is converted on its own: a line, a JSON object, a file.

    ``file`` is relative to the source's folder; ``number`` counts from 1 within it. ``value`` is specific to the format
    and must pickle. A unit with a ``problem`` is quarantined.
    """

    file: str
    number: int
    value: Any = None
    problem: str | None = None


@dataclass(frozen=True)
class Settled:
    """Options of a source that its content determines, and a sentence each about what was decided and why."""

    options: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """A dataset format.

    ``units`` runs in the main process, streams the source and does only cheap work; it raises a DataError if the source
    has no data of the format or an option is invalid. ``convert`` runs in worker processes: a DataError quarantines the
    unit, a yielded unit with a problem quarantines a part of it, and an empty result skips it (such as inactive
    entries). ``options`` are the allowed ``key=value`` arguments with their defaults; ``settle`` determines those that
    are ``auto`` from the source, before any unit is converted. ``stores_images`` says whether images are extracted from
    a source into the output. ``header`` returns what the source holds outside its records; ``restore`` writes rows back
    as a file of the format.
    """

    summary: str
    units: Callable[[Source], Iterator[Unit]]
    convert: Callable[[Unit, Source], Iterable[Row | Unit]]
    options: Mapping[str, str] = field(default_factory=dict)
    settle: Callable[[Source], Settled] | None = None
    stores_images: Callable[[Source], bool] = lambda source: False
    header: Callable[[Source], Mapping[str, Any]] | None = None
    restore: Callable[[Iterator[Row], Mapping[str, Any], Path], None] | None = None


def image_reference(path: Any) -> str:
    """Normalize a record's image path: relative to the image root, with ``/`` as separator.

    Raises:
        DataError: the path is not a string, is absolute, or leaves the root.
    """
    if not isinstance(path, str) or not path.strip():
        raise DataError(f"image: expected a path, found {short_repr(path)}")
    clean = posixpath.normpath(path.strip().replace("\\", "/"))
    if clean.startswith(("/", "../")) or clean in (".", "..") or ":" in clean.split("/", 1)[0] or "\x00" in clean:
        raise DataError(f"image: expected a path below the image root, found {short_repr(path)}")
    return clean


def question_words(prompt: str) -> str:
    """A prompt without image placeholders, its lines without blank ones and superfluous white space.

    The two characters backslash and n, which some datasets store for a line break, count as one. A break after a
    placeholder belongs to that.
    """
    text = _PLACEHOLDER.sub(" ", prompt.replace("\\n", "\n"))
    return "\n".join(words for line in text.splitlines() if (words := " ".join(line.split())))
