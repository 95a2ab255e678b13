"""Parallel map over worker processes."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

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


PARENT = """
import time
from geovlm_ray.data import parallel

if __name__ == "__main__":
    parallel.SERIAL_S = 0.0
    with parallel.Workers(2) as pool:
        for _ in pool.in_order(abs, range(8)):
            pass
        print(*pool._pool._processes, flush=True)
        time.sleep(600)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [Path("/proc") / pid for pid in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)
    assert len(workers) == 2
    end = time.monotonic() + 30
    while (left := [worker for worker in workers if _is_running(worker)]) and time.monotonic() < end:
        time.sleep(0.05)
    for worker in left:
        os.kill(int(worker.name), signal.SIGKILL)
    assert not left


def _is_running(process: Path) -> bool:
    """Whether a process exists; one that nobody waits for remains as a zombie where the first process does not."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_dead_worker_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "SERIAL_S", 0.0)
    with Workers(2) as pool, pytest.raises(RunError, match="worker processes died"):
        list(pool.in_order(os._exit, [3] * 4))
