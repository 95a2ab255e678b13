"""Small training runs through the command line."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

COMMAND = str(Path(sys.executable).with_name("geovlm-ray"))
PROMPTS, GROUP = 6, 4
SMALL = (
    f"rollout.prompts_per_step={PROMPTS}",
    f"rollout.group_size={GROUP}",
    "rollout.max_tokens=40",
    "learner.tokens_per_micro_batch=2048",
    "evaluation.num_examples=0",
    "checkpoint.every=2",
)
MINUTES = 60


def arguments(runs: Path, name: str, steps: int, *more: str) -> list[str]:
    """Command line of a small run of the demo recipe."""
    return [COMMAND, "train", "demo", f"run.dir={runs}", f"run.name={name}", f"run.steps={steps}", *SMALL, *more]


def environment() -> dict[str, str]:
    """This process's environment without Ray settings."""
    return {k: v for k, v in os.environ.items() if not k.startswith("RAY_") and k != "PYTHONDONTWRITEBYTECODE"}


def train(runs: Path, name: str, steps: int, *more: str) -> Path:
    """Train to the end and return the run directory; prints the output on failure."""
    command = arguments(runs, name, steps, *more)
    result = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=12 * MINUTES, check=False
    )
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    return runs / name


def start_and_wait(runs: Path, name: str, steps: int, step: int, *more: str) -> subprocess.Popen[bytes]:
    """Start a run and return once ``step`` steps are logged; its output goes to ``NAME.log``."""
    log = runs / f"{name}.log"
    with log.open("w") as output:
        command = arguments(runs, name, steps, *more)
        process = subprocess.Popen(command, env=environment(), stdout=output, stderr=subprocess.STDOUT)
    wait_for_step(runs / name, step, process, log)
    return process


def wait_for_step(
    run: Path, step: int, process: subprocess.Popen[bytes], log: Path, file: str = "metrics.jsonl"
) -> None:
    """Return once ``step`` steps of a run are logged; prints the log if its process ends earlier."""
    log_rows = run / file
    deadline = time.monotonic() + 10 * MINUTES
    while not log_rows.is_file() or len(log_rows.read_text().splitlines()) < step:
        assert process.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < deadline, f"step {step} was not reached in time\n{log.read_text()[-4000:]}"
        time.sleep(0.05)


def kill_actor(process: subprocess.Popen[bytes], actor: str) -> None:
    """SIGKILL one actor of a class of a run."""
    children = psutil.Process(process.pid).children(recursive=True)
    pids = [child.pid for child in children if child.name().startswith(f"ray::{actor}"[:15])]
    assert pids, [child.name() for child in children]
    os.kill(pids[0], signal.SIGKILL)


def metrics(folder: Path) -> list[dict[str, float]]:
    """Rows of a run's metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_timings(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Metrics rows without timings and throughput."""
    return [{k: v for k, v in row.items() if not k.startswith(("seconds/", "throughput/"))} for row in rows]


def samples(run: Path) -> pa.Table:
    """All samples generated for the steps of a run."""
    return pa.concat_tables(pq.read_table(file) for file in sorted((run / "rollouts").glob("*.parquet")))


def check_samples(run: Path, steps: int, prompts: int = PROMPTS) -> None:
    """Check that every step was logged once, and every sample generated once and trained on."""
    assert [row["step"] for row in metrics(run)] == list(range(1, steps + 1))
    table = samples(run).to_pydict()
    counts = Counter(zip(table["group_id"], table["sample"], strict=True))
    assert counts == Counter((g, s) for g in range(steps * prompts) for s in range(GROUP))
    assert set(table["group_status"]) == {"trained"}


def check_equal_runs(run: Path, expected: Path) -> None:
    """Check that two runs have equal metrics, apart from timings, and equal completions."""
    assert without_timings(metrics(run)) == without_timings(metrics(expected))
    files = [sorted((folder / "rollouts").glob("*.parquet")) for folder in (run, expected)]
    assert [file.name for file in files[0]] == [file.name for file in files[1]]
    for first, second in zip(*files, strict=True):
        assert pq.read_table(first).equals(pq.read_table(second)), first.name


def free_ports(count: int) -> list[int]:
    """Ports on which no process listens, below those that the system gives to others meanwhile."""
    found: list[int] = []
    candidates = iter(random.sample(range(20_000, 32_000), 1_000))
    while len(found) < count:
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", next(candidates)))
            found.append(sock.getsockname()[1])
    return found
