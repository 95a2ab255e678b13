"""A limit on the time of a call into code of others."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class OutOfTime(Exception):  # noqa: N818 - the name states the problem
    """A call took longer than its limit."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block after a number of seconds, in whatever thread it runs.

    It is raised between two instructions of Python code: a call of C code, such as a sleep, ends first.
    """
    thread = ctypes.c_ulong(threading.get_ident())
    lock = threading.Lock()
    ended = is_raised = False

    def stop() -> None:
        nonlocal is_raised
        with lock:
            if not ended:
                is_raised = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(OutOfTime))

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    except OutOfTime:
        raise OutOfTime(f"no end after {seconds:g} seconds") from None
    finally:
        with lock:
            ended = True
            # It may be pending. This call makes the interpreter look for exceptions before every call from then on.
            if is_raised:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)
        timer.cancel()
