"""A contender of a benchmark: a separate process that measures on request."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any


class Contender:
    """A separate process, so that contenders share neither threads nor library settings.

    ``serve`` is called in the process with a pipe and the arguments. It sends one value for its warm-up, then one for
    every request that it receives, until a request is None.
    """

    def __init__(self, serve: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, child_pipe = context.Pipe()
        self._process = context.Process(target=serve, args=(child_pipe, *arguments))
        self._process.start()
        child_pipe.close()
        self._receive()

    def measure(self, request: Any) -> float:
        """The measured value for a request.

        Raises:
            RuntimeError: the process died; its error is on standard error.
        """
        self._pipe.send(request)
        return self._receive()

    def close(self) -> None:
        """End the process."""
        if self._process.is_alive():
            self._pipe.send(None)
        self._process.join()

    def _receive(self) -> float:
        try:
            return self._pipe.recv()
        except EOFError as error:
            self._process.join()
            raise RuntimeError(f"a contender process died with exit code {self._process.exitcode}") from error
