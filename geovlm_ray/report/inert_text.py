"""Terminal text in which markup and control sequences from models, datasets or paths have no effect."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def inert(text: str, style: str = "", kept: str = "") -> Text:
    """Text without markup; non-printable characters not in ``kept`` become U+FFFD."""
    return Text("".join(c if c.isprintable() or c in kept else "�" for c in text), style)


def print_inert(console: Console, text: str) -> None:
    """Print inert text without line breaks of its own."""
    console.print(inert(text), soft_wrap=True)
