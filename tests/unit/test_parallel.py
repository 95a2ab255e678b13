"""Parallel map over worker processes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from geovlm_ray.core.errors import RunError
from geovlm_ray.data import parallel
from geovlm_ray.data.parallel import Workers


def test_results_are_ordered_and_the_job_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "SERIAL_S", 0.0)
    consumed = itertools.count()

    def jobs() -> Iterator[int]:
        for k in range(40):
            next(consumed)
            yield -k

    with Workers(2) as pool:
        results = pool.in_order(abs, jobs())
        assert [next(results) for _ in range(10)] == list(range(10))
        assert next(consumed) <= 10 + 1 + 2 * parallel.JOBS_PER_WORKER
        assert list(results) == list(range(10, 40))
        assert list(pool.in_order(abs, [-1, -2])) == [1, 2]


def test_little_work_runs_in_this_process() -> None:
    with Workers(2) as pool:
        assert set(pool.in_order(lambda job: os.getpid(), range(5))) == {os.getpid()}
    with Workers(1) as pool:
        assert list(pool.in_order(lambda job: job, range(5))) == list(range(5))


def test_dead_worker_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "SERIAL_S", 0.0)
    with Workers(2) as pool, pytest.raises(RunError, match="worker processes died"):
        list(pool.in_order(os._exit, [3] * 4))
