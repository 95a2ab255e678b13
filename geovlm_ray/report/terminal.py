"""The console of all commands, on which text is only text."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import IO, Any, cast

from rich.console import Console, ConsoleOptions, RenderableType, RenderHook
from rich.file_proxy import FileProxy
from rich.segment import Segment
from rich.text import Text

from geovlm_ray.core.terminal import InertStream, discard, inert, inert_lines, unguarded

WIDTH = 140
"""Line width in characters when the output is not a terminal."""


class InertConsole(Console):
    """A console without markup and emoji codes: a string is one line, whatever it contains, and control sequences come
    from Rich alone.

    It is interactive on a terminal only: in notebooks and CI, `FORCE_COLOR` makes Rich take a pipe for a terminal.
    """

    def __init__(self, *, file: IO[str] | None = None, **options: Any) -> None:
        file = file or unguarded(sys.stdout)
        if "force_terminal" not in options:
            options["force_interactive"] = file.isatty()
        super().__init__(file=file, soft_wrap=True, markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """The string as text on one line."""
        return super().render_str(inert(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable; texts that were no strings keep their line breaks."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=inert_lines(segment.text))

    def push_render_hook(self, hook: RenderHook) -> None:
        """Begin a live display; what others then write passes it, which prints it above itself, as inert text."""
        super().push_render_hook(hook)
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if isinstance(stream, FileProxy):
                setattr(sys, name, InertStream(cast(IO[str], stream)))

    def on_broken_pipe(self) -> None:
        """Print nothing more, but let the command finish."""
        self.quiet = True
        discard(self.file)


def open_console() -> InertConsole:
    """A console on standard output, wide enough for tables if that is not a terminal."""
    console = InertConsole()
    return console if console.is_interactive else InertConsole(width=WIDTH)
