"""A contender of a benchmark: a process that measures on request."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any


class Contender:
    """A process of its own, so that contenders share neither threads nor settings of libraries.

    ``serve`` is called there with a pipe and the arguments. It sends one figure for its warm-up, then one for every
    request that it receives, until a request is None.
    """

    def __init__(self, serve: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, *arguments))
        self._process.start()
        theirs.close()
        self._answer()

    def measure(self, request: Any) -> float:
        """The figure for a request.

        Raises:
            RuntimeError: the process has died; what it died of stands on standard error.
        """
        self._pipe.send(request)
        return self._answer()

    def close(self) -> None:
        """End the process."""
        if self._process.is_alive():
            self._pipe.send(None)
        self._process.join()

    def _answer(self) -> float:
        try:
            return self._pipe.recv()
        except EOFError as error:
            self._process.join()
            raise RuntimeError(f"a contender died with exit code {self._process.exitcode}") from error
