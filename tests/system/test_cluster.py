"""The loop on Ray: several engines, all tasks, SBERT, and a job that is submitted to a cluster."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from geovlm_ray.core.schema import TASK_NAMES
from tests.system.runs import MINUTES, arguments, environment, metrics

pytestmark = pytest.mark.slow
RAY = str(Path(sys.executable).with_name("ray"))
TWO_ENGINES = ("placement.rollout.actors=2", "placement.rollout.num_cpus=0.5", "placement.reward.actors=2")


@pytest.fixture
def head() -> Iterator[str]:
    """A cluster of one node; gives the address of its dashboard."""
    # Ray's socket paths may not be long, and pytest's temporary folders are.
    folder = Path(tempfile.mkdtemp(prefix="gv-"))
    ports = (
        "--port=6399",
        "--dashboard-port=8299",
        "--metrics-export-port=8381",
        "--dashboard-agent-listen-port=8386",
        "--dashboard-agent-grpc-port=8387",
        "--ray-client-server-port=8388",
    )
    before = {p.pid for p in psutil.process_iter()}
    started = subprocess.run(
        [RAY, "start", "--head", "--num-cpus=2", *ports, f"--temp-dir={folder}", "--disable-usage-stats"],
        env={**environment(), "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=3 * MINUTES,
        check=False,
    )
    assert started.returncode == 0, started.stdout + started.stderr
    yield "http://127.0.0.1:8299"
    for process in psutil.process_iter(["cmdline"]):
        if process.pid not in before and str(folder) in " ".join(process.info["cmdline"] or []):
            os.kill(process.pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def submit(head: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Submit a job and wait for its end; a cluster that has just started may not take jobs yet."""
    deadline = time.monotonic() + 3 * MINUTES
    while True:
        done = subprocess.run(
            [RAY, "job", "submit", "--address", head, "--", *command],
            env={**environment(), "RAY_AUTH_MODE": "disabled"},
            capture_output=True,
            text=True,
            timeout=12 * MINUTES,
            check=False,
        )
        if "No available agent" not in done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(2)


def test_a_submitted_job_runs_the_same_recipe_and_two_engines_share_every_batch(tmp_path: Path, head: str) -> None:
    settings = (*TWO_ENGINES, "data.stages=[]", "rollout.prompts_per_step=12")
    done = submit(head, arguments(tmp_path, "submitted", 3, *settings))
    assert "succeeded" in done.stdout, done.stdout[-4000:] + done.stderr[-4000:]
    run = tmp_path / "submitted"
    assert (run / "report.html").is_file()
    rows = metrics(run)
    assert [row["staleness/max"] for row in rows] == [0, 1, 1]
    assert all(row["parity/max_abs"] <= 1e-3 for row in rows)
    for step in (1, 2, 3):
        table = pq.read_table(run / "rollouts" / f"step-{step:06d}.parquet").to_pydict()
        samples = set(zip(table["group_id"], table["sample"], strict=True))
        assert samples == {(g, s) for g in range(12 * (step - 1), 12 * step) for s in range(4)}
        assert set(table["task"]) == set(TASK_NAMES)
