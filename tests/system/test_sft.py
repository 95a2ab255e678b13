"""Supervised fine-tuning: killed and resumed, and as the initial policy of RL."""

from __future__ import annotations

from pathlib import Path

import pytest

from geovlm_ray.cli import main
from tests.system.fine_tunings import SCRATCH, SMALL, check_resumed
from tests.system.runs import SMALL as SMALL_RUN
from tests.system.runs import metrics

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_resumed_fine_tuning_equals_uninterrupted_fine_tuning(tmp_path: Path) -> None:
    check_resumed(SCRATCH, tmp_path)


def test_rl_starts_from_the_fine_tuned_adapter(tmp_path: Path) -> None:
    model = str(tmp_path / "model")
    adapter = ("model.lora={rank: 4}", "sft.lr=0.003", "sft.optimizer=muon", "sft.steps=3", "sft.readers=0")
    assert main(["sft", "demo", "--out", model, *SMALL, *adapter]) == 0
    run = (f"run.dir={tmp_path}", "run.name=rl", "run.steps=1", f"model.path={model}")
    assert main(["train", "demo", "--local", *run, *SMALL_RUN]) == 0
    assert metrics(tmp_path / "rl")[0]["parity/max_abs"] <= 1e-3
    assert metrics(tmp_path / "rl")[0]["reward/format"] > 0.3
