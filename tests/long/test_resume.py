"""A killed and resumed run on Ray equals an uninterrupted one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.runs import check_equal_runs, metrics, start_and_wait, train

pytestmark = pytest.mark.slow
ON_RAY = ("loop.max_staleness=0",)
STEPS = 5


def test_resumed_run_equals_uninterrupted_run(tmp_path: Path) -> None:
    uninterrupted = train(tmp_path, "uninterrupted", STEPS, *ON_RAY)
    process = start_and_wait(tmp_path, "killed", STEPS, 3, *ON_RAY)
    process.kill()
    process.wait()
    assert len(metrics(tmp_path / "killed")) < STEPS
    resumed = train(tmp_path, "killed", STEPS, *ON_RAY)
    check_equal_runs(resumed, uninterrupted)
