"""SIGTERM to a run on Ray: one line of output, a checkpoint of the latest step, nothing left behind."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.system.runs import arguments, metrics
from tests.system.test_interrupts import check_line, interrupt

pytestmark = pytest.mark.slow


def test_interrupted_run_saves_its_latest_step(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = arguments(tmp_path, "run", 200, "checkpoint.every=100", "model.lora={rank: 8}")
    step = check_line(interrupt(command, signal.SIGTERM, run, "metrics.jsonl"), "train", run)
    assert step == len(metrics(run)) >= 3
