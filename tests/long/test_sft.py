"""Supervised fine-tuning of adapters and of all weights, and on converted real records."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.rs import RS, needs_rs
from tests.system.fine_tunings import ADAPTER, check_resumed, fine_tune, rows
from tests.system.runs import COMMAND, MINUTES, environment, metrics, train

pytestmark = pytest.mark.slow


def test_resumed_adapter_training_equals_uninterrupted_training(tmp_path: Path) -> None:
    check_resumed(ADAPTER, tmp_path)


def test_rl_starts_from_the_fine_tuned_model(tmp_path: Path) -> None:
    out = fine_tune(tmp_path / "model", "demo", "sft.lr=0.001", steps=3)
    run = train(tmp_path, "after", 1, "--local", f"model.path={out}")
    assert metrics(run)[0]["parity/max_abs"] <= 1e-3
    assert metrics(run)[0]["reward/format"] > 0.3


@needs_rs
def test_real_records_train_through_parquet(tmp_path: Path) -> None:
    converted = tmp_path / "data"
    convert = [COMMAND, "data", "convert", "samples", str(RS / "samples.jsonl"), str(converted)]
    subprocess.run(convert, env=environment(), check=True, capture_output=True, timeout=5 * MINUTES)
    data = ("data.source=parquet", f"data.path={converted}", "data.stages=[]", "data.mixture=natural")
    out = fine_tune(tmp_path / "model", "demo", *data, "sft.batch_size=46", "sft.lr=0.001", steps=3)
    # Every step trains on every record once, with one of its captions.
    assert len({row["tokens"] - row["response_tokens"] for row in rows(out)}) == 1
    assert rows(out)[-1]["loss"] < rows(out)[0]["loss"]
