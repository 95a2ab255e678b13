"""A signal ends a training between two updates; what was learnt until then is saved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from geovlm_ray.core.interrupts import Interrupted, children_ignore_sigint, interruptible, uninterrupted
from tests.unit.test_loop import Book, run


class InterruptedBook(Book):
    """A signal comes while a step is written down."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def log_step(self, step: int, *rest: object) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
        super().log_step(step, *rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(("step", "saved"), [(1, [1]), (4, [4]), (5, [4, 5])])
def test_the_step_under_way_is_written_down_and_saved(step: int, saved: list[int]) -> None:
    book = InterruptedBook(step)
    with pytest.raises(Interrupted) as stop, interruptible():
        run(book=book)
    assert stop.value.exit_code == 143
    assert [row["step"] for row in book.rows] == list(range(1, step + 1))
    assert book.saved == saved


def test_a_signal_between_updates_is_raised_at_once() -> None:
    with pytest.raises(Interrupted) as stop, interruptible():
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.value.exit_code == 130


def test_a_block_is_not_broken_off_by_the_blocks_within() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            with uninterrupted():
                done.append(1)
            done.append(2)

    with pytest.raises(Interrupted), interruptible():
        work()
    assert done == [1, 2]


def test_handlers_are_those_of_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with interruptible():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_signal_ends_the_process_at_once() -> None:
    code = (
        "import os, signal, time\nfrom geovlm_ray.core.interrupts import *\n"
        "with interruptible(), uninterrupted():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(60)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == -signal.SIGTERM


def test_processes_that_are_started_quietly_ignore_ctrl_c() -> None:
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    with children_ignore_sigint():
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.communicate(timeout=30)[0].strip() == "True"
