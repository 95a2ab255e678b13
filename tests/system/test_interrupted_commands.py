"""SIGINT and SIGTERM to every command, at its start and in its work: one line, the exit code, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from tests.system.runs import COMMAND, MINUTES, environment
from tests.unit.conversion import write_scene

pytestmark = [pytest.mark.slow, pytest.mark.long]

RECORDS = 120_000
MOMENTS = [(0.0, signal.SIGINT), (1.0, signal.SIGINT), (6.0, signal.SIGINT), (6.0, signal.SIGTERM)]
"""Seconds after the command has begun to handle signals, at first while modules are imported, and the signal."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources that take several seconds to convert and to score, and a converted dataset."""
    folder = tmp_path_factory.mktemp("inputs")
    write_scene(folder / "a.png")
    record = {"task": "vqa", "images": ["a.png"], "prompt": "Is there a ship?", "reference": "yes"}
    with (folder / "records.jsonl").open("w") as file:
        for i in range(RECORDS):
            file.write(json.dumps({"id": str(i), **record}) + "\n")
    answer = {"task": "image_captioning", "target": ["a ship"] * 5, "response": "<answer>a ship</answer>"}
    with (folder / "responses.jsonl").open("w") as file:
        for i in range(RECORDS):
            file.write(json.dumps({"id": str(i), **answer}) + "\n")
    words = [COMMAND, "data", "convert", "samples", str(folder / "records.jsonl"), str(folder / "data")]
    subprocess.run(words, check=True, capture_output=True, env=environment())
    return folder


COMMANDS = {
    "data convert": "data convert samples {folder}/records.jsonl {out}/again --workers 2",
    "data validate": "data validate {folder}/data --workers 2",
    "data stats": "data stats {folder}/data --workers 2",
    "data scenes": "data scenes --out {out}/scenes.png",
    "score": "score {folder}/responses.jsonl",
    "evaluate": "evaluate tiny --benchmarks drawn --local --out {out}/evaluation",
    "export": "export tiny {out}/export",
    "study": "study format --short --out {out}/study --jobs 2",
    "chat": "chat tiny {folder}/a.png",
    "web": "web tiny --port 0",
    "doctor": "doctor",
    "train": "train demo --local run.dir={out} run.steps=50 evaluation.num_examples=0",
    "sft": "sft tiny-sft --scratch --out {out}/sft",
}


def catches_sigterm(pid: int) -> bool:
    """Whether a process handles SIGTERM, which Python itself does not."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def interrupt(words: Sequence[str], number: int, delay: float, temporary: Path) -> tuple[int, str]:
    """Signal a command after a delay; returns its exit code and stderr. SIGINT reaches its whole process group.

    Checks that its child processes end and that its temporary folder is empty.
    """
    temporary.mkdir()
    settings = {**environment(), "TMPDIR": str(temporary), "RAY_TMPDIR": "/tmp"}
    with subprocess.Popen(
        [COMMAND, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=settings,
        text=True,
        start_new_session=True,
    ) as process:
        while process.poll() is None and not catches_sigterm(process.pid):
            time.sleep(0.005)
        time.sleep(delay)
        if process.poll() is not None:
            assert process.returncode == 0, process.communicate()
            pytest.skip("the command ended before the signal")
        children = psutil.Process(process.pid).children(recursive=True)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, errors = process.communicate(timeout=MINUTES)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    left = [p.name for p in temporary.iterdir() if not p.name.startswith(("geovlm-ray-images-", "torchinductor"))]
    assert not left
    return process.returncode, errors


@pytest.mark.parametrize(("delay", "number"), MOMENTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_interrupted_command_ends_with_one_line(
    command: str, delay: float, number: int, folder: Path, tmp_path: Path
) -> None:
    words = COMMANDS[command].format(folder=folder, out=tmp_path).split()
    code, errors = interrupt(words, number, delay, tmp_path / "tmp")
    assert "Traceback" not in errors
    if code == 0:
        pytest.skip("the command ended before the signal")
    assert code == 128 + number, errors
    assert errors.splitlines()[-1].startswith(("geovlm-ray: interrupted", f"geovlm-ray {words[0]}: interrupted"))
