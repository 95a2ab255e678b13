"""SIGINT and SIGTERM handling: training stops between two updates so that its state can be saved and resumed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Raised on SIGINT or SIGTERM; ``exit_code`` follows the shell convention (130 or 143)."""

    def __init__(self, number: int, message: str = "interrupted") -> None:
        super().__init__(message)
        self.number = number

    @property
    def exit_code(self) -> int:
        """128 + signal number."""
        return 128 + self.number


class _Signals:
    """Signal handler that raises `Interrupted` at once, or at the end of an `uninterrupted` block."""

    def __init__(self) -> None:
        self.depth = 0
        self.received: int | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle the first signal; the default handlers are restored, so a second one kills the process."""
        for handled in SIGNALS:
            signal.signal(handled, signal.SIG_DFL)
        if self.depth:
            self.received = number
        else:
            raise Interrupted(number)


_signals = _Signals()


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the main thread on the first SIGINT or SIGTERM; a second signal kills the process.

    No effect in other threads, because Python delivers signals to the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, _signals.handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Defer signals to the end of the block, so that an update and its records complete."""
    _signals.depth += 1
    try:
        yield
    finally:
        _signals.depth -= 1
        if not _signals.depth and _signals.received is not None:
            number, _signals.received = _signals.received, None
            raise Interrupted(number)


@contextmanager
def children_ignore_sigint() -> Iterator[None]:
    """Child processes started in the block ignore SIGINT, so that Ctrl-C reaches only the parent, which stops them."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def preserve_signal_handlers() -> Iterator[None]:
    """Restore the handlers of `interruptible` after a block in which a library installs its own."""
    replaced = [number for number in SIGNALS if signal.getsignal(number) == _signals.handle]
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, _signals.handle)
