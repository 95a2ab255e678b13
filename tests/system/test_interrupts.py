"""SIGINT and SIGTERM: one line of output, a checkpoint of the latest step, no leftover processes or files."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.system.runs import COMMAND, MINUTES, arguments, environment, metrics, wait_for_step

pytestmark = pytest.mark.slow
SFT = (*("sft.steps=400", "sft.batch_size=4", "sft.eval_examples=0", "sft.checkpoint_every=300"), "sft.readers=1")


def interrupt(command: list[str], signum: int, folder: Path, log_name: str, min_steps: int = 3) -> str:
    """Start a command and signal its process group once ``log_name`` has ``min_steps`` lines; returns its output.

    Checks that no processes and no temporary files are left.
    """
    # Longer than the path of a socket may be.
    log, temp_folder = folder.parent / "output.log", folder.parent / f"temporary-{'-' * 80}"
    temp_folder.mkdir()
    with log.open("w") as output:
        settings = {**environment(), "TMPDIR": str(temp_folder), "RAY_TMPDIR": "/tmp"}
        process = subprocess.Popen(command, env=settings, stdout=output, stderr=output, start_new_session=True)
    wait_for_step(folder, min_steps, process, log, log_name)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signum)
    assert process.wait(timeout=5 * MINUTES) == 128 + signum, log.read_text()[-4000:]
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    leftover = [
        path.name for path in temp_folder.iterdir() if not path.name.startswith(("geovlm-ray-images-", "torchinductor"))
    ]
    assert not leftover
    assert not list((folder / "checkpoints").glob(".partial-*"))
    return log.read_text()


def check_line(printed: str, command: str, folder: Path) -> int:
    """Check that the last line reports the saved checkpoint and there is no traceback; returns the step."""
    assert "Traceback" not in printed
    match = re.fullmatch(
        rf"geovlm-ray {command}: interrupted at step (\d+) of \d+, saved in (\S+); run the same command to resume",
        printed.splitlines()[-1],
    )
    assert match, printed[-3000:]
    assert Path(match[2]) == folder / "checkpoints" / f"step-{int(match[1]):06d}"
    assert Path(match[2]).is_dir()
    return int(match[1])


def test_interrupted_local_run_saves_its_latest_step(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = arguments(tmp_path, "run", 200, "checkpoint.every=100", "model.lora={rank: 8}", "--local")
    step = check_line(interrupt(command, signal.SIGINT, run, "metrics.jsonl"), "train", run)
    assert step == len(metrics(run)) >= 3


def test_interrupted_fine_tuning_saves_its_latest_step(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [COMMAND, "sft", "tiny-sft", "--out", str(out), *SFT]
    step = check_line(interrupt(command, signal.SIGINT, out, "sft.jsonl"), "sft", out)
    assert step == len((out / "sft.jsonl").read_text().splitlines()) >= 3
