"""Ctrl-C of a run in one process: one line, the newest step is kept, and nothing is left behind."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.system.runs import arguments, metrics
from tests.system.test_interrupts import check_line, interrupt

pytestmark = pytest.mark.slow


def test_an_interrupted_local_run_keeps_its_newest_step(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = arguments(tmp_path, "run", 200, "checkpoint.every=100", "model.lora={rank: 8}", "--local")
    step = check_line(interrupt(command, signal.SIGINT, run, "metrics.jsonl"), "train", run)
    assert step == len(metrics(run)) >= 3
