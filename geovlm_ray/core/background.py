"""Tasks that one thread runs in order, with a bound on the memory that waits for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundWriter:
    """Runs tasks in a thread; the data of those that wait never exceed ``max_bytes``, except for a single task."""

    def __init__(self, max_bytes: int) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._failure: BaseException | None = None

    def wait_for(self, size: int) -> bool:
        """Wait until ``size`` bytes more may wait; False if a task failed, so that no others will run."""
        while not self._failure and self._waiting and self._size() + size > self._max_bytes:
            self._finish_first()
        return self._failure is None

    def submit(self, size: int, task: Callable[[], None]) -> None:
        """Run a task, which holds ``size`` bytes, after those before it."""
        if self._failure is None:
            self._waiting.append((size, self._thread.submit(task)))

    def done(self) -> bool:
        """Whether all tasks are complete.

        Raises:
            Exception: what a task raised; the writer can be used again.
        """
        while not self._failure and self._waiting and self._waiting[0][1].done():
            self._finish_first()
        failure, self._failure = self._failure, None
        if failure:
            self._waiting.clear()
            raise failure
        return not self._waiting

    def _finish_first(self) -> None:
        _, task = self._waiting.popleft()
        self._failure = task.exception()
        if self._failure:
            for _, other in self._waiting:
                if not other.cancel():
                    # It has begun: nothing may write any more when the failure is raised.
                    other.exception()

    def _size(self) -> int:
        return sum(size for size, _ in self._waiting)
