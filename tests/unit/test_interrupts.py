"""A signal stops training between two updates, after a checkpoint is saved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from geovlm_ray.core.interrupts import Interrupted, children_ignore_sigint, interruptible, resumable, uninterrupted
from tests.unit.test_loop import Recorder, run


class InterruptedRecorder(Recorder):
    """Sends SIGTERM while a step is logged."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def log_step(self, step: int, *rest: object) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
        super().log_step(step, *rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(("step", "saved"), [(1, [1]), (4, [4]), (5, [4, 5])])
def test_current_step_is_logged_and_saved(step: int, saved: list[int]) -> None:
    recorder = InterruptedRecorder(step)
    with pytest.raises(Interrupted) as stop, interruptible():
        run(recorder=recorder)
    assert stop.value.exit_code == 143
    assert [row["step"] for row in recorder.rows] == list(range(1, step + 1))
    assert recorder.saved == saved


def test_a_signal_between_updates_is_raised_at_once() -> None:
    with pytest.raises(Interrupted) as stop, interruptible():
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.value.exit_code == 130


def test_nested_uninterrupted_blocks_complete_the_outer_block() -> None:
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


def test_previous_signal_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with interruptible():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_interrupt_in_a_callback_whose_exceptions_are_ignored_is_not_lost() -> None:
    code = """
import os, signal, time, weakref
from geovlm_ray.core.interrupts import *

class Thing: pass

def callback(_):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)

thing = Thing()
reference = weakref.ref(thing, callback)
try:
    with interruptible():
        del thing
        time.sleep(30)
except Interrupted as error:
    print(error.exit_code)
"""
    result = subprocess.run([sys.executable, "-c", code], timeout=20, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "143\n", "")


def test_second_signal_kills_the_process() -> None:
    code = (
        "import os, signal, time\nfrom geovlm_ray.core.interrupts import *\n"
        "with interruptible(), uninterrupted():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(60)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == -signal.SIGTERM


def test_children_ignore_sigint_and_the_parent_receives_it_later() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('alive')"
    children = []

    def start_and_interrupt() -> None:
        with interruptible(), children_ignore_sigint():
            child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            children.append(child)

    # Any thread of the process may take the signal, also one that exists before the block.
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    try:
        with pytest.raises(Interrupted):
            start_and_interrupt()
    finally:
        done.set()
        other.join()
    (child,) = children
    assert child.communicate(timeout=30)[0].strip() == "alive"


def test_first_process_of_multiprocessing_ignores_sigint() -> None:
    code = (
        "import multiprocessing, os, signal\nfrom geovlm_ray.core.interrupts import children_ignore_sigint\n"
        "if __name__ == '__main__':\n"
        "    child = multiprocessing.get_context('spawn').Process(target=signal.raise_signal, args=(signal.SIGINT,))\n"
        "    with children_ignore_sigint():\n        child.start()\n"
        "    child.join()\n    print(child.exitcode)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (result.stdout.strip(), result.stderr) == ("0", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_before_the_work_of_a_command_ends_the_process_with_one_line(number: int) -> None:
    code = (
        "import time; from geovlm_ray.core.interrupts import end_at_once\n"
        "end_at_once()\nprint(flush=True)\n"
        "try:\n    time.sleep(60)\nexcept BaseException:\n    print('seen by a library')"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(number)
        assert process.communicate() == (b"", b"geovlm-ray: interrupted\n")
    assert process.returncode == 128 + number


def test_interrupted_command_says_how_to_go_on() -> None:
    with pytest.raises(Interrupted, match=r"^interrupted; run it again$") as stop, resumable("run it again"):
        raise Interrupted(signal.SIGTERM)
    assert stop.value.exit_code == 143
