"""Supervised fine-tuning: killed and resumed, and as the initial policy of RL."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from geovlm_ray.cli import main
from geovlm_ray.model.loading import model_folder
from tests.system.fine_tunings import SCRATCH, SMALL, check_resumed, rows
from tests.system.runs import COMMAND, MINUTES, environment, metrics
from tests.system.runs import SMALL as SMALL_RUN

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_resumed_fine_tuning_equals_uninterrupted_fine_tuning(tmp_path: Path) -> None:
    check_resumed(SCRATCH, tmp_path)


@pytest.mark.long
def test_two_processes_train_like_one(tmp_path: Path) -> None:
    settings = (*SMALL, "sft.steps=4", "sft.readers=0", "sft.lr=1e-3", "sft.warmup_steps=0")
    assert main(["sft", "demo", "--out", str(tmp_path / "one"), *settings]) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    command = [*launcher, COMMAND, "sft", "demo", "--out", str(tmp_path / "two"), *settings]
    result = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=10 * MINUTES, check=False
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert result.stdout.count("Model: ") == 1, "both processes print"
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert two == [pytest.approx(row, rel=1e-4) for row in one]
    folders = (model_folder("tiny-start"), tmp_path / "one", tmp_path / "two")
    before, single, double = (load_file(folder / "model.safetensors") for folder in folders)
    updates = [torch.cat([(after[n] - before[n]).flatten() for n in before]) for after in (single, double)]
    # AdamW normalizes gradients that are close to rounding error, so single weights may differ.
    assert (updates[0] - updates[1]).norm() <= 0.01 * updates[0].norm()


def test_rl_starts_from_the_fine_tuned_adapter(tmp_path: Path) -> None:
    model = str(tmp_path / "model")
    adapter = ("model.lora={rank: 4}", "sft.lr=0.003", "sft.optimizer=muon", "sft.steps=3", "sft.readers=0")
    assert main(["sft", "demo", "--out", model, *SMALL, *adapter]) == 0
    run = (f"run.dir={tmp_path}", "run.name=rl", "run.steps=1", f"model.path={model}")
    assert main(["train", "demo", "--local", *run, *SMALL_RUN]) == 0
    assert metrics(tmp_path / "rl")[0]["parity/max_abs"] <= 1e-3
    assert metrics(tmp_path / "rl")[0]["reward/format"] > 0.3
