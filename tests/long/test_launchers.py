"""Slurm script and SkyPilot task with real Ray: two nodes on this machine; Slurm's commands are small scripts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import yaml

from tests.system.runs import COMMAND, MINUTES, environment, metrics

TOP = Path(__file__).parents[2]
SRUN = """#!/bin/bash
# The command of a step, on this machine.
while [ "$1" != ray ]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then printf '127.0.0.1\\n127.0.0.1\\n'; else echo "$@" >> "$REQUEUED"; fi
"""
MARK = "GEOVLM_RAY_TEST"
SETTINGS = (
    "demo rollout.prompts_per_step=4 evaluation.num_examples=0 placement.rollout.num_cpus=1 run.wait_for_nodes_s=120"
)
"""With one CPU on each node, engine and learner need both."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with Slurm's commands; afterwards no process of this test is left."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    yield tmp_path
    end_processes(tmp_path)


def end_processes(folder: Path) -> None:
    """End all processes of a test, as Slurm ends the steps of a job."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == str(folder):
                process.kill()


def marked(folder: Path) -> dict[str, str]:
    """The environment of the processes of a test, by which they are found in the end."""
    return {**environment(), MARK: str(folder)}


def start(words: Sequence[str], settings: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("w") as file:
        return subprocess.Popen(words, cwd=TOP, env=settings, stdout=file, stderr=file, start_new_session=True)


def slurm(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    job = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": str(os.getpid() % 20000), "SLURM_CPUS_ON_NODE": "1"}
    settings = {**marked(folder), **job, "REQUEUED": str(folder / "requeued")}
    settings["PATH"] = f"{folder}:{settings['PATH']}"
    script = str(TOP / "deploy" / "slurm.sh")
    command = ["bash", script, *SETTINGS.split(), f"run.dir={folder}", "run.name=job", *words]
    return start(command, settings, folder / "log.txt")


def test_slurm_job_trains_on_all_nodes_and_is_queued_again_by_the_time_limit(folder: Path) -> None:
    job = slurm(folder, "run.steps=200", "checkpoint.every=100")
    file = folder / "job" / "metrics.jsonl"
    while not (file.is_file() and metrics(folder / "job")):
        assert job.poll() is None, (folder / "log.txt").read_text()[-3000:]
        time.sleep(0.5)
    os.kill(job.pid, signal.SIGTERM)
    assert job.wait(timeout=5 * MINUTES) == 143, (folder / "log.txt").read_text()[-3000:]
    end_processes(folder)
    assert (folder / "requeued").read_text().startswith("requeue ")
    saved = max((folder / "job" / "checkpoints").glob("step-*"))
    done = int(saved.name.removeprefix("step-"))
    assert 0 < done < 200
    job = slurm(folder, f"run.steps={done + 2}")
    assert job.wait(timeout=5 * MINUTES) == 0, (folder / "log.txt").read_text()[-3000:]
    assert [row["step"] for row in metrics(folder / "job")] == list(range(1, done + 3))


def test_skypilot_task_trains_on_all_nodes(folder: Path) -> None:
    task = yaml.safe_load((TOP / "deploy" / "skypilot.yaml").read_text())
    script = task["run"].replace("--disable-usage-stats", "--disable-usage-stats --num-cpus=1")
    settings = {
        **marked(folder),
        **task["envs"],
        "ARGUMENTS": f"{SETTINGS} run.dir={folder} run.name=job run.steps=2",
        "RAY_AUTH_TOKEN": "0" * 64,
        "SKYPILOT_NODE_IPS": "127.0.0.1\n127.0.0.1",
    }
    nodes = [
        start(["bash", "-c", script], {**settings, "SKYPILOT_NODE_RANK": str(rank)}, folder / f"log-{rank}.txt")
        for rank in (0, 1)
    ]
    codes = [node.wait(timeout=5 * MINUTES) for node in nodes]
    assert codes == [0, 0], (folder / "log-0.txt").read_text()[-3000:]
    assert [row["step"] for row in metrics(folder / "job")] == [1, 2]


def test_doctor_checks_every_node_of_the_cluster(folder: Path) -> None:
    settings = {**marked(folder), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "1" * 64}
    ray = str(Path(COMMAND).with_name("ray"))
    # Below the ports that the system gives to connections.
    port = 20000 + os.getpid() % 10000
    options = ["--disable-usage-stats", "--num-cpus=1", "--block"]
    head = [ray, "start", "--head", f"--port={port}", "--include-dashboard=false", *options]
    worker = [ray, "start", f"--address=127.0.0.1:{port}", *options]
    subprocess.Popen(head, env=settings, stdout=subprocess.DEVNULL)
    alive = [ray, "health-check", "--address", f"127.0.0.1:{port}"]
    while subprocess.run(alive, env=settings, capture_output=True, check=False).returncode:
        time.sleep(1)
    subprocess.Popen(worker, env=settings, stdout=subprocess.DEVNULL)
    known = {**settings, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    output, end = "", time.monotonic() + 3 * MINUTES
    while output.count("\nNode ") < 2:
        assert time.monotonic() < end, output
        result = subprocess.run([COMMAND, "doctor"], env=known, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        output = result.stdout
    assert output.count("ok    resources: 1 CPUs, 0 GPUs, ") == 2
    assert output.count("ok    WordNet: found") == 3
    stranger = {**known, "RAY_AUTH_TOKEN": "2" * 64}
    result = subprocess.run([COMMAND, "doctor"], env=stranger, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr


def test_launchers_are_complete_files() -> None:
    assert subprocess.run(["bash", "-n", str(TOP / "deploy" / "slurm.sh")], check=False).returncode == 0
    task = yaml.safe_load((TOP / "deploy" / "skypilot.yaml").read_text())
    for part in ("setup", "run"):
        assert subprocess.run(["bash", "-n", "-c", task[part]], check=False).returncode == 0
    assert set(task) <= {"name", "num_nodes", "resources", "workdir", "file_mounts", "envs", "secrets", "setup", "run"}
    assert shutil.which("openssl")
