"""Jobs submitted to a head with the settings of our compose file: what the token opens, and what stays closed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
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

from tests.system.jobs import RAY, Laptop, check_failed_and_stopped
from tests.system.runs import COMMAND, MINUTES, environment

pytestmark = pytest.mark.slow
HEAD = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())["services"]["head"]
ADDRESS = "http://127.0.0.1:8289"
GCS_PORT, METRICS_PORT = 6389, 8391
TOKEN = "5e1f" * 16
REFUSED = {None: 401, "0000" * 16: 403}
# One machine is the laptop and the cluster here: ports and addresses differ from those of the containers.
HERE = (
    f"--port={GCS_PORT}",
    "--dashboard-host=127.0.0.1",
    "--dashboard-port=8289",
    f"--metrics-export-port={METRICS_PORT}",
    "--dashboard-agent-listen-port=8396",
    "--dashboard-agent-grpc-port=8397",
    "--ray-client-server-port=8398",
)


@dataclass(frozen=True)
class Cluster:
    """A head, and the folder that holds its token and Ray's files."""

    folder: Path

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
        return Laptop({**self.environment(token), "RAY_API_SERVER_ADDRESS": ADDRESS})


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Ray's socket paths may not be long, and pytest's temporary folders are.
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="gv-")))
    command = [RAY, *HEAD["command"][1:], *HERE, f"--temp-dir={cluster.folder / 'ray'}"]
    with (cluster.folder / "start.log").open("w") as log:
        head = subprocess.Popen(command, env=cluster.environment(), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 3 * MINUTES
        # The job API is there before the agent that takes jobs.
        while cluster.job("submit", "--", "true").returncode:
            still_starting = head.poll() is None and time.monotonic() < deadline
            assert still_starting, (cluster.folder / "start.log").read_text()
            time.sleep(1)
        yield cluster
    finally:
        head.terminate()
        head.wait(timeout=MINUTES)
        for process in psutil.process_iter(["cmdline"]):
            if str(cluster.folder) in " ".join(process.info["cmdline"] or []):
                os.kill(process.pid, signal.SIGKILL)
        shutil.rmtree(cluster.folder, ignore_errors=True)


def request(path: str, token: str | None, body: dict[str, str] | None = None, port: int | None = None) -> int:
    """The status of the answer to a request."""
    address = f"http://127.0.0.1:{port}" if port else ADDRESS
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
def test_the_api_answers_the_token_only(cluster: Cluster, path: str) -> None:
    assert request(path, TOKEN) == 200
    for token, status in REFUSED.items():
        assert request(path, token) == status


def test_no_job_starts_without_the_token(cluster: Cluster, tmp_path: Path) -> None:
    entrypoint = f"touch {tmp_path / 'started'}"
    for token, status in REFUSED.items():
        assert request("/api/jobs/", token, {"entrypoint": entrypoint}) == status
        refused = cluster.job("submit", "--", "touch", str(tmp_path / "started"), token=token)
        assert refused.returncode != 0
        assert "submitted successfully" not in refused.stdout
    time.sleep(3)
    assert not (tmp_path / "started").exists()


def test_no_driver_or_node_joins_without_the_token(cluster: Cluster) -> None:
    def run(*words: str, token: str | None) -> subprocess.CompletedProcess[bytes]:
        command = [RAY, *words, f"--address=127.0.0.1:{GCS_PORT}"]
        env = cluster.environment(token)
        return subprocess.run(command, env=env, capture_output=True, timeout=3 * MINUTES, check=False)

    assert run("status", token=TOKEN).returncode == 0
    refused = [run("status", token=token) for token in REFUSED]
    refused.append(run("start", f"--temp-dir={cluster.folder / 'node'}", token=None))
    for done in refused:
        assert done.returncode != 0
        assert b"InvalidAuthToken" in done.stdout + done.stderr


def test_a_job_from_a_laptop(cluster: Cluster, tmp_path: Path) -> None:
    """A folder goes along, the environment is set, and logs, exit code and status tell of the end."""
    record = {"id": "1", "task": "vqa", "response": "<think>a</think><answer>yes</answer>", "target": "yes"}
    (tmp_path / "answers.jsonl").write_text(json.dumps(record) + "\n")
    env = json.dumps({"env_vars": {"PRESET": "paper"}})
    score = f"{COMMAND} score answers.jsonl reward.preset=$PRESET"
    options = ("--submission-id=scored", f"--working-dir={tmp_path}", f"--runtime-env-json={env}")
    done = cluster.job("submit", *options, "--", "sh", "-c", score)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"accuracy": 1.0' in cluster.job("logs", "scored").stdout
    assert "SUCCEEDED" in cluster.job("status", "scored").stdout.upper()


def test_a_job_that_fails_or_is_stopped_says_so(cluster: Cluster) -> None:
    check_failed_and_stopped(cluster.laptop())


def test_a_run_in_a_job_joins_the_cluster(cluster: Cluster) -> None:
    script = "from actors.cluster import connect, nodes; connect(); print('CPUs', nodes()[0].get('CPU', 0))"
    done = cluster.job("submit", "--", sys.executable, "-c", script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CPUs 0" in done.stdout


def test_what_is_open_tells_no_secret_and_no_log_holds_the_token(cluster: Cluster) -> None:
    assert request("/metrics", None, port=METRICS_PORT) == 200
    files = [f for f in (cluster.folder / "ray").rglob("*") if f.is_file() and "token" not in f.name]
    assert len(files) > 10
    assert not [str(f) for f in files if TOKEN.encode() in f.read_bytes()]
    assert TOKEN not in (cluster.folder / "start.log").read_text()
    command_lines = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    assert not [line for line in command_lines if TOKEN in line]
