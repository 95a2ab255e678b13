"""Closes an actor pool while one of its calls waits for an actor to start."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from actors.reward import RayRewards
from actors.rollout_pool import RayRollouts
from geovlm_ray.core.errors import LostError


def check_close_ends_waiting_call(
    pool: RayRollouts | RayRewards, call: Callable[[], object], waits: Callable[[], bool]
) -> None:
    """Check that the pool closes at once while the call waits, which is some time after ``waits`` holds."""
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(call)
        deadline = time.monotonic() + 60
        while not waits():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=2)
        begun = time.monotonic()
        pool.close()
        assert time.monotonic() - begun < 1
        with pytest.raises(LostError):
            waiting.result(timeout=30)
