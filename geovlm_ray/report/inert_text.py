"""Text for a terminal that is shown and never obeyed, whatever a model, a dataset or a path may have put into it."""

from __future__ import annotations

from rich.text import Text


def inert(text: str, style: str = "", kept: str = "") -> Text:
    """Text without markup and without control characters but those ``kept``."""
    return Text("".join(c if c.isprintable() or c in kept else "�" for c in text), style)
