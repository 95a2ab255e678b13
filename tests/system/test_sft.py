"""Supervised fine-tuning through the command line: killed and resumed, on converted records, and as a start for RL."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.rs import RS, needs_rs
from tests.system.runs import COMMAND, MINUTES, environment, metrics, train

pytestmark = pytest.mark.slow
SMALL = ("sft.batch_size=6", "sft.eval_examples=12", "sft.eval_every=3", "sft.checkpoint_every=2", "sft.log_every=1")
STEPS = 9
SCRATCH = ("tiny-sft", "--scratch")
ADAPTER = ("demo", "model.lora={rank: 4}", "sft.lr=0.003", "sft.optimizer=muon")


def arguments(out: Path, *more: str, steps: int = STEPS) -> list[str]:
    return [COMMAND, "sft", "--out", str(out), *more[:1], *SMALL, f"sft.steps={steps}", *more[1:]]


def fine_tune(out: Path, *more: str, steps: int = STEPS) -> Path:
    """Run to the end; the output is shown where it fails."""
    command = arguments(out, *more, steps=steps)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=12 * MINUTES, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return out


def rows(out: Path) -> list[dict[str, Any]]:
    """The lines of a training's log without what depends on the machine's speed."""
    lines = [json.loads(line) for line in (out / "sft.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def kill_after(step: int, out: Path, *more: str) -> None:
    """Start a training, and SIGKILL it as soon as ``step`` steps are written down."""
    log = out.with_suffix(".log").open("w")
    process = subprocess.Popen(arguments(out, *more), env=environment(), stdout=log, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 10 * MINUTES
    written = out / "sft.jsonl"
    while not written.is_file() or len(written.read_text().splitlines()) < step:
        assert process.poll() is None, out.with_suffix(".log").read_text()[-4000:]
        assert time.monotonic() < deadline, "the training did not get as far as the step at which it is killed"
        time.sleep(0.02)
    process.kill()
    process.wait()


@pytest.mark.parametrize("recipe", [SCRATCH, ADAPTER], ids=["scratch", "adapter"])
def test_losses_after_a_kill_equal_those_of_an_undisturbed_training(recipe: tuple[str, ...], tmp_path: Path) -> None:
    undisturbed = fine_tune(tmp_path / "undisturbed", *recipe)
    killed = tmp_path / "killed"
    kill_after(5, killed, *recipe)
    assert len(rows(killed)) < STEPS
    assert not (killed / "config.json").exists()
    fine_tune(killed, *recipe)
    assert rows(killed) == rows(undisturbed)
    assert [row["step"] for row in rows(killed)] == list(range(1, STEPS + 1))
    assert (killed / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()
    assert (killed / "sft_summary.json").is_file()


@pytest.mark.parametrize("recipe", [("demo", "sft.lr=0.001"), ADAPTER], ids=["full", "adapter"])
def test_what_comes_of_it_is_where_train_begins(recipe: tuple[str, ...], tmp_path: Path) -> None:
    out = fine_tune(tmp_path / "model", *recipe, steps=3)
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
    # Every step trains on every record once, though not always on the same of its captions.
    assert len({row["tokens"] - row["response_tokens"] for row in rows(out)}) == 1
    assert rows(out)[-1]["loss"] < rows(out)[0]["loss"]
