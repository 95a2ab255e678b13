"""Progress of long commands: a live line on a terminal, a line every few seconds otherwise."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

from geovlm_ray.core.terminal import inert

INTERVAL_S = 10.0
"""Seconds between lines when the output is not a terminal."""


class Progress:
    """Progress display; `show` is rate-limited, and a terminal's live line disappears at exit."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.start = self.shown = time.monotonic()
        self.label, self.offset = "", 0
        self.status = Status("", console=console)

    def __enter__(self) -> Self:
        if self.console.is_interactive:
            self.status.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.status.stop()

    def show(self, done: int, label: str, suffix: str = "") -> None:
        """Show the count ``done`` with its label and the rate since the first call with this label."""
        now = time.monotonic()
        if label != self.label:
            self.label, self.start, self.offset = label, now, done
        rate = f", {(done - self.offset) / (now - self.start):,.0f}/s" if now > self.start else ""
        text = f"{done:,} {label}{rate}{suffix}"
        if self.console.is_interactive:
            self.status.update(Text(inert(text)))
        elif now - self.shown >= INTERVAL_S:
            self.shown = now
            self.console.print(text)
