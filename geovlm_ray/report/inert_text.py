"""Terminal text in which markup and control sequences from models, datasets or paths have no effect."""

from __future__ import annotations

from rich.text import Text


def inert(text: str, style: str = "", kept: str = "") -> Text:
    """Text without markup; non-printable characters not in ``kept`` become U+FFFD."""
    return Text("".join(c if c.isprintable() or c in kept else "�" for c in text), style)
