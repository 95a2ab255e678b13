"""Work on streams in several processes."""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cached_property
from types import TracebackType
from typing import Self, TypeVar

from geovlm_ray.core.errors import RunError

Job = TypeVar("Job")
Result = TypeVar("Result")

WAITING = 2
"""Jobs that wait or run for each worker, at most: memory does not grow with the stream."""
PATIENCE_S = 1.0
"""Seconds of work that this process does itself before it starts others, which take about as long to be ready."""


class Workers:
    """A number of worker processes, started once there is work enough for them; a context manager that ends them."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if "_pool" in self.__dict__:
            self._pool.shutdown(cancel_futures=True)

    def in_order(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """The results of a function over jobs, in the order of the jobs.

        Raises:
            RunError: a worker process died.
        """
        rest = iter(jobs)
        spent = 0.0
        while self.count < 2 or ("_pool" not in self.__dict__ and spent < PATIENCE_S):
            start = time.monotonic()
            try:
                job = next(rest)
            except StopIteration:
                return
            result = function(job)
            spent += time.monotonic() - start
            yield result
        try:
            yield from self._shared_out(function, rest)
        except BrokenProcessPool as error:
            raise RunError(
                f"one of {self.count} worker processes died, most likely for want of memory; fewer --workers need less"
            ) from error

    def _shared_out(self, function: Callable[[Job], Result], jobs: Iterator[Job]) -> Iterator[Result]:
        running: deque[Future[Result]] = deque()
        for job in jobs:
            running.append(self._pool.submit(function, job))
            if len(running) > WAITING * self.count:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()

    @cached_property
    def _pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.count, mp_context=multiprocessing.get_context("spawn"))
