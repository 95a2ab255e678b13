"""Jobs submitted to a Ray head configured as in docker-compose.yml: token authentication and training."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from tests.system.jobs import RAY, JobClient, check_failed_and_stopped
from tests.system.runs import COMMAND, MINUTES, arguments, check_samples, environment, free_ports, metrics

pytestmark = pytest.mark.slow
HEAD = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())["services"]["head"]
TOKEN = "5e1f" * 16
REJECTED = {None: 401, "0000" * 16: 403}
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
    """A head: the folder of its token and of Ray's files, and its ports (`PORTS`)."""

    folder: Path
    ports: dict[str, int]

    @property
    def address(self) -> str:
        """URL of the job server."""
        return f"http://127.0.0.1:{self.ports['dashboard-port']}"

    def environment(self, token: str | None = TOKEN) -> dict[str, str]:
        """Environment of a client, with a token file as in docker-compose.yml, or without a token."""
        if token is None:
            return {**environment(), "RAY_AUTH_MODE": "disabled"}
        file = self.folder / f"token-{token[:4]}"
        file.write_text(token)
        return {**environment(), **HEAD["environment"], "RAY_AUTH_TOKEN_PATH": str(file)}

    def job(self, *words: str, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
        """Run `ray job ...` as a client."""
        return self.client(token).job(*words)

    def client(self, token: str | None = TOKEN) -> JobClient:
        """A client with a token file, or without a token."""
        return JobClient({**self.environment(token), "RAY_API_SERVER_ADDRESS": self.address})


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    # pytest's temporary folders exceed the length limit of Ray's socket paths.
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="gv-")), dict(zip(PORTS, free_ports(len(PORTS)), strict=True)))
    ports = [f"--{name}={port}" for name, port in cluster.ports.items()]
    # Client and cluster share this machine, so ports and addresses differ from those of the containers.
    local_options = ["--dashboard-host=127.0.0.1", f"--temp-dir={cluster.folder / 'ray'}"]
    command = [RAY, *HEAD["command"][1:], *ports, *local_options]
    with (cluster.folder / "start.log").open("w") as log:
        process = subprocess.Popen(command, env=cluster.environment(), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 3 * MINUTES
        # The job API responds before the job agent is ready.
        while cluster.job("submit", "--", "true").returncode:
            still_starting = process.poll() is None and time.monotonic() < deadline
            assert still_starting, (cluster.folder / "start.log").read_text()
            time.sleep(1)
        yield cluster
    finally:
        process.terminate()
        process.wait(timeout=MINUTES)
        for leftover in psutil.process_iter(["cmdline"]):
            if str(cluster.folder) in " ".join(leftover.info["cmdline"] or []):
                os.kill(leftover.pid, signal.SIGKILL)
        shutil.rmtree(cluster.folder, ignore_errors=True)


def request(address: str, path: str, token: str | None, body: dict[str, str] | None = None) -> int:
    """HTTP status of a request."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(address + path, data, headers), timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize(
    "path", ["/api/jobs/", "/api/version", "/api/cluster_status", "/nodes?view=summary", "/api/v0/actors"]
)
def test_api_requires_the_token(head: Cluster, path: str) -> None:
    assert request(head.address, path, TOKEN) == 200
    for token, status in REJECTED.items():
        assert request(head.address, path, token) == status


def test_job_submission_requires_the_token(head: Cluster, tmp_path: Path) -> None:
    entrypoint = f"touch {tmp_path / 'started'}"
    for token, status in REJECTED.items():
        assert request(head.address, "/api/jobs/", token, {"entrypoint": entrypoint}) == status
        rejected = head.job("submit", "--", "touch", str(tmp_path / "started"), token=token)
        assert rejected.returncode != 0
        assert "submitted successfully" not in rejected.stdout
    time.sleep(3)
    assert not (tmp_path / "started").exists()


@pytest.mark.long
def test_drivers_and_nodes_require_the_token(head: Cluster) -> None:
    def run(*words: str, token: str | None) -> subprocess.CompletedProcess[bytes]:
        command = [RAY, *words, f"--address=127.0.0.1:{head.ports['port']}"]
        env = head.environment(token)
        return subprocess.run(command, env=env, capture_output=True, timeout=3 * MINUTES, check=False)

    assert run("status", token=TOKEN).returncode == 0
    rejected = [run("status", token=token) for token in REJECTED]
    rejected.append(run("start", f"--temp-dir={head.folder / 'node'}", token=None))
    for result in rejected:
        assert result.returncode != 0
        assert b"InvalidAuthToken" in result.stdout + result.stderr


def test_submitted_job_gets_its_working_dir_and_environment(head: Cluster, tmp_path: Path) -> None:
    """Checks exit code, logs and status of a finished job."""
    record = {"id": "1", "task": "vqa", "response": "<think>a</think><answer>yes</answer>", "target": "yes"}
    (tmp_path / "answers.jsonl").write_text(json.dumps(record) + "\n")
    env = json.dumps({"env_vars": {"PRESET": "paper"}})
    score = f"{COMMAND} score answers.jsonl reward.preset=$PRESET"
    options = ("--submission-id=scored", f"--working-dir={tmp_path}", f"--runtime-env-json={env}")
    result = head.job("submit", *options, "--", "sh", "-c", score)
    assert result.returncode == 0, result.stdout + result.stderr
    assert '"accuracy": 1.0' in head.job("logs", "scored").stdout
    assert "SUCCEEDED" in head.job("status", "scored").stdout.upper()


@pytest.mark.long
def test_failed_and_stopped_jobs_report_their_status(head: Cluster) -> None:
    check_failed_and_stopped(head.client())


def test_submitted_run_trains_on_the_cluster(head: Cluster, tmp_path: Path) -> None:
    """The actors request no CPUs because the head offers none."""
    kinds = ("rollout", "reward", "learner")
    command = arguments(tmp_path, "submitted", 2, *(f"placement.{kind}.num_cpus=0" for kind in kinds))
    result = head.job("submit", "--", *command)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert "succeeded" in result.stdout
    check_samples(tmp_path / "submitted", 2)
    assert all(row["parity/max_abs"] <= 1e-3 for row in metrics(tmp_path / "submitted"))


def test_token_is_absent_from_logs_and_command_lines(head: Cluster) -> None:
    assert request(f"http://127.0.0.1:{head.ports['metrics-export-port']}", "/metrics", None) == 200
    files = [f for f in (head.folder / "ray").rglob("*") if f.is_file() and "token" not in f.name]
    assert len(files) > 10
    assert not [str(f) for f in files if TOKEN.encode() in f.read_bytes()]
    assert TOKEN not in (head.folder / "start.log").read_text()
    command_lines = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    assert not [line for line in command_lines if TOKEN in line]
