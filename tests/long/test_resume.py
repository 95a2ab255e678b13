"""A run on Ray that is killed and resumed equals one that was not."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.system.runs import metrics, started, train, without_timings

pytestmark = pytest.mark.slow
ON_RAY = ("loop.max_staleness=0",)
STEPS = 5


def test_metrics_after_a_kill_equal_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    undisturbed = train(tmp_path, "undisturbed", STEPS, *ON_RAY)
    process = started(tmp_path, "killed", STEPS, 3, *ON_RAY)
    process.kill()
    process.wait()
    assert len(metrics(tmp_path / "killed")) < STEPS
    resumed = train(tmp_path, "killed", STEPS, *ON_RAY)
    assert without_timings(metrics(resumed)) == without_timings(metrics(undisturbed))
    for step in range(1, STEPS + 1):
        files = [run / "rollouts" / f"step-{step:06d}.parquet" for run in (undisturbed, resumed)]
        first, second = (pq.read_table(file) for file in files)
        assert first.equals(second)
