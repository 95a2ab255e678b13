"""Ctrl-C and SIGTERM: one line, what was learnt is kept, and nothing is left behind."""

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


def interrupt(command: list[str], number: int, folder: Path, rows: str, least: int = 3) -> str:
    """Start a command, send a signal to its process group when ``rows`` has some lines; returns what it printed.

    It must leave neither processes nor files in the temporary folder.
    """
    log, scratch = folder.parent / "output.log", folder.parent / "scratch"
    scratch.mkdir()
    with log.open("w") as output:
        settings = {**environment(), "TMPDIR": str(scratch), "RAY_TMPDIR": "/tmp"}
        process = subprocess.Popen(command, env=settings, stdout=output, stderr=output, start_new_session=True)
    wait_for_step(folder, least, process, log, rows)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number)
    assert process.wait(timeout=5 * MINUTES) == 128 + number, log.read_text()[-4000:]
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    left = [
        path.name for path in scratch.iterdir() if not path.name.startswith(("geovlm-ray-images-", "torchinductor"))
    ]
    assert not left
    assert not list((folder / "checkpoints").glob(".partial-*"))
    return log.read_text()


def check_line(printed: str, command: str, folder: Path) -> int:
    """The last line says where the training stands; there is nothing like a traceback. Returns the step."""
    assert "Traceback" not in printed
    said = re.fullmatch(
        rf"geovlm-ray {command}: interrupted at step (\d+) of \d+, saved in (\S+); run the same command to resume",
        printed.splitlines()[-1],
    )
    assert said, printed[-3000:]
    assert Path(said[2]) == folder / "checkpoints" / f"step-{int(said[1]):06d}"
    assert Path(said[2]).is_dir()
    return int(said[1])


def test_an_interrupted_run_keeps_its_newest_step(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = arguments(tmp_path, "run", 200, "checkpoint.every=100", "model.lora={rank: 8}")
    step = check_line(interrupt(command, signal.SIGTERM, run, "metrics.jsonl"), "train", run)
    assert step == len(metrics(run)) >= 3


def test_an_interrupted_fine_tuning_keeps_its_newest_step(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [COMMAND, "sft", "tiny-sft", "--out", str(out), *SFT]
    step = check_line(interrupt(command, signal.SIGINT, out, "sft.jsonl"), "sft", out)
    assert step == len((out / "sft.jsonl").read_text().splitlines()) >= 3
