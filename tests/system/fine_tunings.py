"""Small supervised fine-tuning runs through the command line."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.system.runs import COMMAND, MINUTES, environment

SMALL = ("sft.batch_size=6", "sft.eval_examples=12", "sft.eval_every=3", "sft.checkpoint_every=2", "sft.log_every=1")
STEPS = 9
SCRATCH = ("tiny-sft", "--scratch")
ADAPTER = ("demo", "model.lora={rank: 4}", "sft.lr=0.003", "sft.optimizer=muon")


def arguments(out: Path, *more: str, steps: int = STEPS) -> list[str]:
    return [COMMAND, "sft", "--out", str(out), *more[:1], *SMALL, f"sft.steps={steps}", *more[1:]]


def fine_tune(out: Path, *more: str, steps: int = STEPS) -> Path:
    """Fine-tune to the end and return the output folder; prints the output on failure."""
    command = arguments(out, *more, steps=steps)
    result = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=12 * MINUTES, check=False
    )
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    return out


def rows(out: Path) -> list[dict[str, Any]]:
    """Rows of sft.jsonl without the timings."""
    lines = [json.loads(line) for line in (out / "sft.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def kill_after(step: int, out: Path, *more: str) -> None:
    """Start fine-tuning and SIGKILL it once ``step`` steps are logged."""
    log = out.with_suffix(".log").open("w")
    process = subprocess.Popen(arguments(out, *more), env=environment(), stdout=log, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 10 * MINUTES
    log_file = out / "sft.jsonl"
    while not log_file.is_file() or len(log_file.read_text().splitlines()) < step:
        assert process.poll() is None, out.with_suffix(".log").read_text()[-4000:]
        assert time.monotonic() < deadline, f"step {step} was not reached in time"
        time.sleep(0.02)
    process.kill()
    process.wait()


def check_resumed(recipe: tuple[str, ...], tmp_path: Path) -> None:
    """Check that a killed and resumed run has the losses and weights of an uninterrupted run."""
    uninterrupted = fine_tune(tmp_path / "uninterrupted", *recipe)
    killed = tmp_path / "killed"
    kill_after(5, killed, *recipe)
    assert len(rows(killed)) < STEPS
    assert not (killed / "config.json").exists()
    fine_tune(killed, *recipe)
    assert rows(killed) == rows(uninterrupted)
    assert [row["step"] for row in rows(killed)] == list(range(1, STEPS + 1))
    assert (killed / "model.safetensors").read_bytes() == (uninterrupted / "model.safetensors").read_bytes()
    assert (killed / "sft_summary.json").is_file()
