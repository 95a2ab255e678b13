"""Jobs submitted to a head with the settings of our compose file: training, and what the token opens and closes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from tests.system.jobs import RAY, Laptop, check_failed_and_stopped
from tests.system.runs import COMMAND, MINUTES, arguments, check_samples, environment, metrics

pytestmark = pytest.mark.slow
HEAD = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())["services"]["head"]
TOKEN = "5e1f" * 16
REFUSED = {None: 401, "0000" * 16: 403}
PORTS = (
    "port",
    "dashboard-port",
    "metrics-export-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "ray-client-server-port",
)


@dataclass(frozen=True)
class Cluster:
    """A head, the folder that holds its token and Ray's files, and its ports (`PORTS`)."""

    folder: Path
    ports: dict[str, int]

    @property
    def address(self) -> str:
        """URL of the job server."""
        return f"http://127.0.0.1:{self.ports['dashboard-port']}"

    def environment(self, token: str | None = TOKEN) -> dict[str, str]:
        """What a laptop sets, with a token in a file as the compose file has it, or without one."""
        if token is None:
            return {**environment(), "RAY_AUTH_MODE": "disabled"}
        file = self.folder / f"token-{token[:4]}"
        file.write_text(token)
        return {**environment(), **HEAD["environment"], "RAY_AUTH_TOKEN_PATH": str(file)}

    def job(self, *words: str, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
        """`ray job ...` as a user types it on a laptop."""
        return self.laptop(token).job(*words)

    def laptop(self, token: str | None = TOKEN) -> Laptop:
        """A machine with a token in a file, or without one."""
        return Laptop({**self.environment(token), "RAY_API_SERVER_ADDRESS": self.address})


def free_ports(number: int) -> list[int]:
    """Ports that nothing listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    # Ray's socket paths may not be long, and pytest's temporary folders are.
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="gv-")), dict(zip(PORTS, free_ports(len(PORTS)), strict=True)))
    ports = [f"--{name}={port}" for name, port in cluster.ports.items()]
    # One machine is the laptop and the cluster here: ports and addresses differ from those of the containers.
    here = ["--dashboard-host=127.0.0.1", f"--temp-dir={cluster.folder / 'ray'}"]
    command = [RAY, *HEAD["command"][1:], *ports, *here]
    with (cluster.folder / "start.log").open("w") as log:
        process = subprocess.Popen(command, env=cluster.environment(), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 3 * MINUTES
        # The job API is there before the agent that takes jobs.
        while cluster.job("submit", "--", "true").returncode:
            still_starting = process.poll() is None and time.monotonic() < deadline
            assert still_starting, (cluster.folder / "start.log").read_text()
            time.sleep(1)
        yield cluster
    finally:
        process.terminate()
        process.wait(timeout=MINUTES)
        for left in psutil.process_iter(["cmdline"]):
            if str(cluster.folder) in " ".join(left.info["cmdline"] or []):
                os.kill(left.pid, signal.SIGKILL)
        shutil.rmtree(cluster.folder, ignore_errors=True)


def request(address: str, path: str, token: str | None, body: dict[str, str] | None = None) -> int:
    """The status of the answer to a request."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(address + path, data, headers), timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize(
    "path", ["/api/jobs/", "/api/version", "/api/cluster_status", "/nodes?view=summary", "/api/v0/actors"]
)
def test_the_api_answers_the_token_only(head: Cluster, path: str) -> None:
    assert request(head.address, path, TOKEN) == 200
    for token, status in REFUSED.items():
        assert request(head.address, path, token) == status


def test_no_job_starts_without_the_token(head: Cluster, tmp_path: Path) -> None:
    entrypoint = f"touch {tmp_path / 'started'}"
    for token, status in REFUSED.items():
        assert request(head.address, "/api/jobs/", token, {"entrypoint": entrypoint}) == status
        refused = head.job("submit", "--", "touch", str(tmp_path / "started"), token=token)
        assert refused.returncode != 0
        assert "submitted successfully" not in refused.stdout
    time.sleep(3)
    assert not (tmp_path / "started").exists()


def test_no_driver_or_node_joins_without_the_token(head: Cluster) -> None:
    def run(*words: str, token: str | None) -> subprocess.CompletedProcess[bytes]:
        command = [RAY, *words, f"--address=127.0.0.1:{head.ports['port']}"]
        env = head.environment(token)
        return subprocess.run(command, env=env, capture_output=True, timeout=3 * MINUTES, check=False)

    assert run("status", token=TOKEN).returncode == 0
    refused = [run("status", token=token) for token in REFUSED]
    refused.append(run("start", f"--temp-dir={head.folder / 'node'}", token=None))
    for done in refused:
        assert done.returncode != 0
        assert b"InvalidAuthToken" in done.stdout + done.stderr


def test_a_job_from_a_laptop(head: Cluster, tmp_path: Path) -> None:
    """A folder goes along, the environment is set, and logs, exit code and status tell of the end."""
    record = {"id": "1", "task": "vqa", "response": "<think>a</think><answer>yes</answer>", "target": "yes"}
    (tmp_path / "answers.jsonl").write_text(json.dumps(record) + "\n")
    env = json.dumps({"env_vars": {"PRESET": "paper"}})
    score = f"{COMMAND} score answers.jsonl reward.preset=$PRESET"
    options = ("--submission-id=scored", f"--working-dir={tmp_path}", f"--runtime-env-json={env}")
    done = head.job("submit", *options, "--", "sh", "-c", score)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"accuracy": 1.0' in head.job("logs", "scored").stdout
    assert "SUCCEEDED" in head.job("status", "scored").stdout.upper()


def test_a_job_that_fails_or_is_stopped_says_so(head: Cluster) -> None:
    check_failed_and_stopped(head.laptop())


def test_a_submitted_run_trains_on_the_cluster(head: Cluster, tmp_path: Path) -> None:
    """The head reserves no CPUs for actors, so that this run asks for none."""
    kinds = ("rollout", "reward", "learner")
    command = arguments(tmp_path, "submitted", 2, *(f"placement.{kind}.num_cpus=0" for kind in kinds))
    done = head.job("submit", "--", *command)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "succeeded" in done.stdout
    check_samples(tmp_path / "submitted", 2)
    assert all(row["parity/max_abs"] <= 1e-3 for row in metrics(tmp_path / "submitted"))


def test_what_is_open_tells_no_secret_and_no_log_holds_the_token(head: Cluster) -> None:
    assert request(f"http://127.0.0.1:{head.ports['metrics-export-port']}", "/metrics", None) == 200
    files = [f for f in (head.folder / "ray").rglob("*") if f.is_file() and "token" not in f.name]
    assert len(files) > 10
    assert not [str(f) for f in files if TOKEN.encode() in f.read_bytes()]
    assert TOKEN not in (head.folder / "start.log").read_text()
    command_lines = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    assert not [line for line in command_lines if TOKEN in line]
