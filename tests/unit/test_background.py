"""Background writing: the bound on waiting data, and failures."""

from __future__ import annotations

import threading
import time

import pytest

from geovlm_ray.core.background import BackgroundWriter


def finish(writer: BackgroundWriter) -> None:
    while not writer.done():
        time.sleep(0.001)


def test_tasks_run_in_order_and_no_more_data_wait_than_allowed() -> None:
    writer, gate, ran = BackgroundWriter(max_bytes=10), threading.Event(), []
    for size in (4, 6):
        assert writer.wait_for(size)
        writer.submit(size, lambda size=size: (gate.wait(), ran.append(size))[1])  # type: ignore[misc]
    threading.Timer(0.2, gate.set).start()
    begun = time.monotonic()
    assert writer.wait_for(5)
    assert time.monotonic() - begun > 0.1
    assert ran[0] == 4
    finish(writer)
    assert ran == [4, 6]


def test_one_task_may_be_larger_than_the_bound() -> None:
    writer, ran = BackgroundWriter(max_bytes=10), []
    assert writer.wait_for(50)
    writer.submit(50, lambda: ran.append(50))
    finish(writer)
    assert ran == [50]


def test_failure_is_raised_once_and_stops_the_tasks_after_it() -> None:
    def fail() -> None:
        raise OSError("no space left")

    writer, ran = BackgroundWriter(max_bytes=10), []
    writer.submit(8, fail)
    assert not writer.wait_for(8)
    writer.submit(8, lambda: ran.append(8))
    with pytest.raises(OSError, match="no space left"):
        finish(writer)
    writer.submit(1, lambda: ran.append(1))
    finish(writer)
    assert ran == [1]


def test_nothing_runs_any_more_when_a_failure_is_raised() -> None:
    def fail() -> None:
        raise OSError("no space left")

    writer, running, ran = BackgroundWriter(max_bytes=10), threading.Event(), list[str]()

    def write_slowly() -> None:
        running.set()
        time.sleep(0.1)
        ran.append("written")

    writer.submit(1, fail)
    writer.submit(1, write_slowly)
    running.wait()
    with pytest.raises(OSError, match="no space left"):
        finish(writer)
    assert ran == ["written"]
