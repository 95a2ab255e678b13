"""Ctrl-C and SIGTERM: a training ends between two updates, keeps what was learnt, and says how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end; ``exit_code`` is what a shell expects then (130 or 143)."""

    def __init__(self, number: int, message: str = "interrupted") -> None:
        super().__init__(message)
        self.number = number

    @property
    def exit_code(self) -> int:
        """128 and the signal's number."""
        return 128 + self.number


class _Signals:
    """Raises `Interrupted` where a signal arrives, or at the end of the block that must not be broken off."""

    def __init__(self) -> None:
        self.depth = 0
        self.received: int | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take notice of a signal; a second one ends the process at once."""
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        if self.depth:
            self.received = number
        else:
            raise Interrupted(number)


_signals = _Signals()


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, the first SIGINT or SIGTERM raises `Interrupted` in the main thread, and the second ends the process.

    In other threads, which get no signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _signals.handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off a signal until the end of the block: an update, and what is written down of it, are done whole."""
    _signals.depth += 1
    try:
        yield
    finally:
        _signals.depth -= 1
        if not _signals.depth and _signals.received is not None:
            number, _signals.received = _signals.received, None
            raise Interrupted(number)


@contextmanager
def no_interrupts_inherited() -> Iterator[None]:
    """Processes that are started within ignore Ctrl-C, which a terminal sends to all: this process ends them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restore the handlers that `interruptible` set, where a library sets its own within."""
    ours = [number for number in SIGNALS if signal.getsignal(number) == _signals.handle]
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, _signals.handle)
