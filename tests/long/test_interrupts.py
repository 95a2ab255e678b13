"""SIGINT in a single-process run: one line of output, a checkpoint of the latest step, nothing left behind."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.system.runs import arguments, metrics
from tests.system.test_interrupts import check_line, interrupt

pytestmark = pytest.mark.slow


def test_interrupted_local_run_saves_its_latest_step(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = arguments(tmp_path, "run", 200, "checkpoint.every=100", "model.lora={rank: 8}", "--local")
    step = check_line(interrupt(command, signal.SIGINT, run, "metrics.jsonl"), "train", run)
    assert step == len(metrics(run)) >= 3
