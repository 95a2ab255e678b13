"""How far a long command is: a live line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

SECONDS = 10.0
"""Between two lines where there is no terminal."""
WIDTH = 140
"""Characters a line where there is no terminal."""


def open_console() -> Console:
    """Standard output, wide enough for tables where it is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


class Progress:
    """``show`` may be called as often as one likes; on a terminal nothing of it stays."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.start = self.shown = time.monotonic()
        self.what, self.before = "", 0
        self.status = Status("", console=console)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.status.stop()

    def show(self, done: int, what: str, more: str = "") -> None:
        """Say that so many are done of what is named, and how many a second since the first time."""
        now = time.monotonic()
        if what != self.what:
            self.what, self.start, self.before = what, now, done
        speed = f", {(done - self.before) / (now - self.start):,.0f}/s" if now > self.start else ""
        text = f"{done:,} {what}{speed}{more}"
        if self.console.is_terminal:
            self.status.update(Text(text))
        elif now - self.shown >= SECONDS:
            self.shown = now
            self.console.print(Text(text), soft_wrap=True)
