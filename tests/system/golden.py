"""One Ray run read by many tests: two engines, all tasks, SBERT, a killed engine, its sockets, unauthorized clients."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import psutil
from ray._private import ray_constants

from tests.system.remote_calls import call_all, listening_addresses
from tests.system.runs import COMMAND, MINUTES, PROMPTS, arguments, environment, kill_actor, wait_for_step

STEPS = 6
KILL_AFTER_STEP = 2
BENCHMARKS = ("drawn-vqa", "drawn-scene_classification")
SETTINGS = (
    *("placement.rollout.actors=2", "placement.rollout.num_cpus=0.5"),
    *("data.stages=[]", f"rollout.prompts_per_step={2 * PROMPTS}", "loop.max_staleness=1"),
    *("run.trace_steps=[2]", "run.log_level=debug", "checkpoint.keep=1", "checkpoint.every=5"),
    *("evaluation.every=2", f"evaluation.benchmarks=[{', '.join(BENCHMARKS)}]", "evaluation.records=8"),
)
REMOTE_CALL = """
import sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR")
print(ray.get(ray.remote(lambda: "code ran").options(num_cpus=0).remote()))
"""


@dataclass(frozen=True)
class GoldenRun:
    """A finished run; exit code and output of clients that connected to its cluster with and without its token.

    ``sockets`` maps the addresses on which its processes listened to what remote calls without and with the token got.
    """

    folder: Path
    output: str
    unauthorized: list[tuple[int, str]]
    authorized: tuple[int, str]
    sockets: dict[tuple[str, int], tuple[set[str], set[str]]]


def golden_run(runs: Path) -> GoldenRun:
    """Train; meanwhile connect to the run's cluster without and with its token, and kill one rollout actor."""
    output = runs / "golden.log"
    with output.open("w") as log:
        process = subprocess.Popen(
            arguments(runs, "golden", STEPS, *SETTINGS), env=environment(), stdout=log, stderr=log
        )
    address, token = _cluster_address_and_token(process, output)
    clients = [
        _start_client(address, {"RAY_AUTH_MODE": "disabled"}),
        _start_client(address, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}),
        _start_client(address, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}),
    ]
    *unauthorized, authorized = [_client_result(client) for client in clients]
    addresses = sorted(listening_addresses(process.pid))
    with ThreadPoolExecutor(len(addresses)) as pool:
        answers = zip(pool.map(call_all, addresses), pool.map(call_all, addresses, repeat(token)), strict=True)
        sockets = dict(zip(addresses, answers, strict=True))
    wait_for_step(runs / "golden", KILL_AFTER_STEP, process, output)
    kill_actor(process, "RolloutActor")
    assert process.wait(10 * MINUTES) == 0, output.read_text()[-4000:]
    return GoldenRun(runs / "golden", output.read_text(), unauthorized, authorized, sockets)


def top(run: Path) -> list[str]:
    """Output lines of `geovlm-ray top` for a run."""
    command = [COMMAND, "top", str(run), "--once"]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=True)
    return result.stdout.splitlines()


def _cluster_address_and_token(driver: subprocess.Popen[bytes], output: Path) -> tuple[str, str]:
    """GCS address and token of a driver's cluster, read from its raylet process."""
    deadline = time.monotonic() + 3 * MINUTES
    while True:
        assert driver.poll() is None, output.read_text()[-4000:]
        assert time.monotonic() < deadline, "no cluster was started"
        for process in psutil.Process(driver.pid).children(recursive=True):
            with suppress(psutil.Error):
                addresses = [word for word in process.cmdline() if word.startswith("--gcs-address=")]
                if addresses and process.name() == "raylet":
                    return addresses[0].partition("=")[2], process.environ()["RAY_AUTH_TOKEN"]
        time.sleep(0.2)


def _start_client(address: str, settings: dict[str, str]) -> subprocess.Popen[str]:
    """Start a process that connects to the cluster, over the loopback interface, and runs a remote function."""
    command = [sys.executable, "-c", REMOTE_CALL, address]
    pipe, loopback = subprocess.PIPE, {ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}
    return subprocess.Popen(command, env={**environment(), **loopback, **settings}, stdout=pipe, stderr=pipe, text=True)


def _client_result(process: subprocess.Popen[str]) -> tuple[int, str]:
    stdout, stderr = process.communicate(timeout=5 * MINUTES)
    return process.returncode, stdout + stderr
