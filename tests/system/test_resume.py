"""A killed run goes on as if nothing had happened."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.system.runs import MINUTES, arguments, environment, metrics, train, without_timings

pytestmark = pytest.mark.slow
ON_POLICY = "loop.max_staleness=0"
STEPS = 7


def kill_after(step: int, runs: Path, name: str) -> None:
    """Start a run, and SIGKILL its driver as soon as ``step`` steps are written down."""
    log = (runs / "killed.log").open("w")
    process = subprocess.Popen(
        arguments(runs, name, STEPS, ON_POLICY), env=environment(), stdout=log, stderr=subprocess.STDOUT
    )
    written = runs / name / "metrics.jsonl"
    deadline = time.monotonic() + 10 * MINUTES
    while not written.is_file() or len(written.read_text().splitlines()) < step:
        assert process.poll() is None, (runs / "killed.log").read_text()[-4000:]
        assert time.monotonic() < deadline, "the run did not get as far as the step at which it is killed"
        time.sleep(0.05)
    process.kill()
    process.wait()


def test_metrics_after_a_kill_equal_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    undisturbed = train(tmp_path, "undisturbed", STEPS, ON_POLICY)
    kill_after(3, tmp_path, "killed")
    assert len(metrics(tmp_path / "killed")) < STEPS
    resumed = train(tmp_path, "killed", STEPS, ON_POLICY)
    assert without_timings(metrics(resumed)) == without_timings(metrics(undisturbed))
    for step in range(1, STEPS + 1):
        files = [run / "rollouts" / f"step-{step:06d}.parquet" for run in (undisturbed, resumed)]
        first, second = (pq.read_table(file) for file in files)
        assert first.equals(second)
