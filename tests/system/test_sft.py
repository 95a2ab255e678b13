"""Supervised fine-tuning through the command line: resume after a kill, and RL from its output."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.fine_tunings import ADAPTER, SCRATCH, check_resumed, fine_tune
from tests.system.runs import metrics, train

pytestmark = pytest.mark.slow


def test_resumed_fine_tuning_equals_uninterrupted_fine_tuning(tmp_path: Path) -> None:
    check_resumed(SCRATCH, tmp_path)


def test_rl_starts_from_the_fine_tuned_adapter(tmp_path: Path) -> None:
    out = fine_tune(tmp_path / "model", *ADAPTER, steps=3)
    run = train(tmp_path, "after", 1, "--local", f"model.path={out}")
    assert metrics(run)[0]["parity/max_abs"] <= 1e-3
    assert metrics(run)[0]["reward/format"] > 0.3
