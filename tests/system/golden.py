"""One run on Ray that many tests read: two engines, all tasks, SBERT, a killed engine, and strangers at its cluster."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.system.runs import COMMAND, MINUTES, PROMPTS, arguments, environment, kill_actor, wait_for_step

STEPS = 6
KILLED_AFTER = 2
BENCHMARKS = ("drawn-vqa", "drawn-scene_classification")
SETTINGS = (
    *("placement.rollout.actors=2", "placement.rollout.num_cpus=0.5"),
    *("data.stages=[]", f"rollout.prompts_per_step={2 * PROMPTS}", "loop.max_staleness=1"),
    *("run.trace_steps=[2]", "run.log_level=debug", "checkpoint.keep=1", "checkpoint.every=5"),
    *("evaluation.every=2", f"evaluation.benchmarks=[{', '.join(BENCHMARKS)}]", "evaluation.records=8"),
)
JOIN = """
import sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR")
print(ray.get(ray.remote(lambda: "code ran").options(num_cpus=0).remote()))
"""


@dataclass(frozen=True)
class GoldenRun:
    """The finished run; ``strangers`` are exit code and output of processes that tried to join its cluster."""

    folder: Path
    output: str
    strangers: list[tuple[int, str]]
    owner: tuple[int, str]


def golden_run(runs: Path) -> GoldenRun:
    """Train; meanwhile try to join the run's cluster without and with its token, and kill one rollout actor."""
    output = runs / "golden.log"
    with output.open("w") as log:
        process = subprocess.Popen(
            arguments(runs, "golden", STEPS, *SETTINGS), env=environment(), stdout=log, stderr=log
        )
    address, token = _own_cluster(process, output)
    asking = [
        _join(address, {"RAY_AUTH_MODE": "disabled"}),
        _join(address, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}),
        _join(address, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}),
    ]
    *strangers, owner = [_answer(asked) for asked in asking]
    wait_for_step(runs / "golden", KILLED_AFTER, process, output)
    kill_actor(process, "RolloutActor")
    assert process.wait(10 * MINUTES) == 0, output.read_text()[-4000:]
    return GoldenRun(runs / "golden", output.read_text(), strangers, owner)


def top(run: Path) -> list[str]:
    """The lines of `geovlm-ray top` on a run."""
    command = [COMMAND, "top", str(run), "--once"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def _own_cluster(driver: subprocess.Popen[bytes], output: Path) -> tuple[str, str]:
    """Address of the control store and token of a driver's cluster, from its node manager's process."""
    deadline = time.monotonic() + 3 * MINUTES
    while True:
        assert driver.poll() is None, output.read_text()[-4000:]
        assert time.monotonic() < deadline, "no cluster was started"
        for process in psutil.Process(driver.pid).children(recursive=True):
            with suppress(psutil.Error):
                given = [word for word in process.cmdline() if word.startswith("--gcs-address=")]
                if given and process.name() == "raylet":
                    return given[0].partition("=")[2], process.environ()["RAY_AUTH_TOKEN"]
        time.sleep(0.2)


def _join(address: str, settings: dict[str, str]) -> subprocess.Popen[str]:
    """Another process that knows the address, and asks the cluster to run a function."""
    command = [sys.executable, "-c", JOIN, address]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env={**environment(), **settings}, stdout=pipe, stderr=pipe, text=True)


def _answer(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, complained = process.communicate(timeout=5 * MINUTES)
    return process.returncode, said + complained
