"""Limits on the time of a call."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from geovlm_ray.core.time_limit import OutOfTime, time_limit


def run_for_ever() -> None:
    while True:
        pass


def test_a_loop_without_end_is_ended() -> None:
    started = time.monotonic()
    with pytest.raises(OutOfTime, match=r"no end after 0\.2 seconds"), time_limit(0.2):
        run_for_ever()
    assert time.monotonic() - started < 20


def test_code_after_a_limit_can_be_profiled() -> None:
    code = (
        "import cProfile\nfrom geovlm_ray.core.time_limit import time_limit\n"
        "with cProfile.Profile():\n    with time_limit(60):\n        pass\n    sum(range(10))\nprint('ended')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.stderr) == ("ended\n", "")
