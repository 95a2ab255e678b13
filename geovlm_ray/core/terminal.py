"""The border to the terminal: text from data, models, files and arguments has no effect there but to be read."""

from __future__ import annotations

import logging
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

MAX_CHARS = 4_000
"""Longer lines are cut off."""


def inert(text: str, *, kept: str = "", limit: int | None = MAX_CHARS) -> str:
    """The text with backslash escapes, as in Python, in place of what a terminal or a page does not show as it is.

    Those are control characters and line breaks, except for those in ``kept``, invisible characters, characters that
    change the direction of text, and lone surrogates. A text with more than ``limit`` characters is cut off.
    """
    if limit is not None and len(text) > limit:
        text = f"{text[:limit]} ... ({len(text) - limit:,} more characters)"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept or unicodedata.category(c) == "Zs" else _escaped(c) for c in text)


def inert_lines(text: str) -> str:
    """As `inert`, for texts with any number of lines."""
    return inert(text, kept="\n\t", limit=None)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


class InertStream:
    """A text stream to which only inert lines are written; what is written after its reader has gone is discarded."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write the text with escapes; returns its length without them."""
        try:
            self.stream.write(inert_lines(text))
        except BrokenPipeError:
            discard(self.stream)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write all lines with escapes."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self.stream.flush()
        except BrokenPipeError:
            discard(self.stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def discard(stream: IO[str]) -> None:
    """Let a stream whose reader has gone write to nowhere, so that the command can finish."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def unguarded(stream: Any) -> IO[str]:
    """The stream without the `InertStream` around it, for a writer whose control sequences are its own."""
    return stream.stream if isinstance(stream, InertStream) else stream


@contextmanager
def inert_streams() -> Iterator[None]:
    """Make standard output and error inert, whoever writes to them: argparse, logging, warnings, Ray."""
    before = {name: stream for name in ("stdout", "stderr") if (stream := getattr(sys, name)) is not None}
    for name, stream in before.items():
        setattr(sys, name, InertStream(stream))
    try:
        yield
    finally:
        for name, stream in before.items():
            getattr(sys, name).flush()
            setattr(sys, name, stream)


class LineFormatter(logging.Formatter):
    """One line per message; only the traceback of an exception has lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The message on one line."""
        return inert(super().formatMessage(record))
