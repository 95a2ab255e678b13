"""Ordered parallel map over a stream with bounded memory."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import cached_property
from typing import TypeVar

from geovlm_ray.core.errors import RunError
from geovlm_ray.core.interrupts import children_ignore_sigint
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.tasks.extensions import Extensions, activate, active

Job = TypeVar("Job")
Result = TypeVar("Result")

JOBS_PER_WORKER = 2
"""Maximum number of queued or running jobs per worker, which bounds memory."""
SERIAL_S = 1.0
"""Seconds of work to do in this process before starting workers, which need about as long to start."""


class Workers(ExitStack):
    """Context manager for a pool of worker processes, started only once the serial work exceeds `SERIAL_S`."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def in_order(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Apply a function to jobs and yield the results in the order of the jobs.

        Raises:
            RunError: A worker process died.
        """
        remaining = iter(jobs)
        elapsed = 0.0
        while self.count < 2 or ("_pool" not in self.__dict__ and elapsed < SERIAL_S):
            start = time.monotonic()
            try:
                job = next(remaining)
            except StopIteration:
                return
            result = function(job)
            elapsed += time.monotonic() - start
            yield result
        running: deque[Future[Result]] = deque()
        try:
            for job in remaining:
                # A job may start another process.
                with children_ignore_sigint():
                    running.append(self._pool.submit(function, job))
                if len(running) > JOBS_PER_WORKER * self.count:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        except BrokenProcessPool as error:
            raise RunError(
                f"one of {self.count} worker processes died, probably out of memory; lower --workers"
            ) from error

    @cached_property
    def _pool(self) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self.count, spawn, initializer=_start_worker, initargs=(active(),))
        self.callback(pool.shutdown, cancel_futures=True)
        return pool


def _start_worker(extensions: Extensions) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    silence_third_party_logs()
    activate(extensions)


def _end_with_parent() -> None:
    """End this process after its parent, however that ends: a worker that waits for a job would never notice."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
