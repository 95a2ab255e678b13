"""SIGINT and SIGTERM handling: training stops between two updates so that its state can be saved and resumed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_S = 0.02
"""Delay until an ignored interrupt is sent again, when the callback that it met has ended."""


class Interrupted(KeyboardInterrupt):
    """Raised on SIGINT or SIGTERM; ``exit_code`` is 128 + signal number (130 or 143), as in shells."""

    def __init__(self, number: int, message: str = "interrupted") -> None:
        super().__init__(message)
        self.number = number
        self.exit_code = 128 + number


class _Signals:
    """Signal handler that raises `Interrupted` at once, or at the end of an `uninterrupted` block."""

    def __init__(self) -> None:
        self.depth = 0
        self.received: int | None = None
        self.raised: Interrupted | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle the first signal; the default handlers are restored, so a second one kills the process."""
        for handled in SIGNALS:
            signal.signal(handled, signal.SIG_DFL)
        if self.depth:
            self.received = number
        else:
            self.raised = Interrupted(number)
            raise self.raised


_signals = _Signals()


@contextmanager
def _handled(numbers: Iterable[int], handler: Callable[[int, FrameType | None], Any] | int) -> Iterator[None]:
    """Handle signals with ``handler`` in the block, and restore the previous handlers after it."""
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)


def end_at_once() -> None:
    """Let SIGINT and SIGTERM end this process with one line: for the time before and after the work of a command.

    While modules are imported there is nothing to save, and an exception would surface as the error of any library.
    """
    for number in SIGNALS:
        signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"geovlm-ray: interrupted\n")
    os._exit(128 + number)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the main thread on the first SIGINT or SIGTERM; a second signal kills the process.

    No effect in other threads, because Python delivers signals to the main thread only.
    """
    _signals.raised = None
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = sys.unraisablehook
    sys.unraisablehook = _raise_again(previous)
    try:
        with _handled(SIGNALS, _signals.handle):
            yield
    finally:
        sys.unraisablehook = previous


def _raise_again(otherwise: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A hook for exceptions that Python ignores, in callbacks and finalizers: it sends an ignored interrupt again."""

    def hook(ignored: Any) -> None:
        if ignored.exc_value is None or ignored.exc_value is not _signals.raised:
            otherwise(ignored)
            return
        for handled in SIGNALS:
            signal.signal(handled, _signals.handle)
        threading.Timer(_AGAIN_S, os.kill, (os.getpid(), _signals.raised.number)).start()

    return hook


def replaced_interrupt() -> Interrupted | None:
    """The `Interrupted` that was raised in the latest `interruptible` block.

    A library may replace it by an exception of its own, above all while it is imported.
    """
    return _signals.raised


@contextmanager
def resumable(how: str) -> Iterator[None]:
    """Say how to continue, such as ``run the same command to resume``, if the block is interrupted."""
    try:
        yield
    except Interrupted as error:
        raise Interrupted(error.number, f"interrupted; {how}") from error


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
    """Child processes started in the block never receive SIGINT: Ctrl-C reaches only the parent, which stops them.

    They inherit that it is blocked. The parent receives one that comes in the block at its end, also where another
    of its threads takes the signal.
    """
    from multiprocessing import resource_tracker

    # Its start, which the first process of multiprocessing causes, unblocks the signal.
    resource_tracker.ensure_running()
    with uninterrupted():
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def preserve_signal_handlers() -> AbstractContextManager[None]:
    """Restore the handlers of `interruptible` after a block in which a library installs its own."""
    return _handled([n for n in SIGNALS if signal.getsignal(n) == _signals.handle], _signals.handle)
