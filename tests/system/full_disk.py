"""Runs on a disk that is full: ``unshare --map-root-user --mount python -m tests.system.full_disk train|sft FOLDER``.

The disk is a file system in memory. A run on it is started again and again, with a little more space after every error,
until it finishes as on a disk with space. Writes the errors to ``errors.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from geovlm_ray.config import load_config
from geovlm_ray.core.errors import UserError
from geovlm_ray.training.sft import fine_tune
from tests.system.fine_tunings import rows
from tests.system.runs import metrics, without_timings
from tests.system.test_restarts import CrashingLearner
from tests.unit.datasets import write_image
from tests.unit.resuming import STEPS, SmallRun, write_files

KIB = 2**10
SFT = ("sft.steps=3", "sft.batch_size=2", "sft.eval_every=2", "sft.eval_examples=2", "sft.readers=0")


def finish(start: Callable[[], Any], disk: Path, run: Path, more_kib: int) -> list[str]:
    """Start a run on a full disk until it finishes; returns the errors.

    After a new error the disk gets ``more_kib`` more space, after a known one twice as much as before, since what is
    repeated takes space too. What was free is taken by the checkpoint of a killed process.
    """
    size, more, errors = 4, more_kib, list[str]()
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)], check=True)
    while True:
        if (run / "checkpoints").is_dir():
            (run / "checkpoints" / ".partial-dead").mkdir()
            with pytest.raises(OSError, match="No space left"):
                (run / "checkpoints" / ".partial-dead" / "model.safetensors").write_bytes(bytes(2 * size * KIB))
        try:
            start()
            return errors
        except UserError as error:
            more = 2 * more if str(error) in errors else more_kib
            errors.append(str(error))
        _check_nothing_partial(disk)
        size += more
        subprocess.run(["mount", "-o", f"remount,size={size}k", str(disk)], check=True)


def _check_nothing_partial(disk: Path) -> None:
    """Check that there is no file or folder half-written; an evaluation in the background may go on for a moment."""
    deadline = time.monotonic() + 10
    while left := [path for path in disk.rglob("*") if ".partial" in path.name]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


class LargeLearner(CrashingLearner):
    """Learner with a checkpoint that does not fit beside it on a full disk."""

    def save(self, folder: Path) -> None:
        super().save(folder)
        (folder / "model.safetensors").write_bytes(bytes(64 * KIB))


def train(folder: Path) -> list[str]:
    """A run of reinforcement learning with fake engine and learner, evaluations and a trace."""
    benchmark = {"id": "b", "task": "vqa", "images": ["b.png"], "prompt": "Is there a ship?", "reference": "no"}
    write_image(folder / "b.png", 0)
    write_files(folder, {"b.jsonl": json.dumps(benchmark) + "\n"})
    settings = ("evaluation.benchmarks=[b.jsonl]", "evaluation.every=2", "evaluation.records=4")
    run = SmallRun.create(folder, pytest.MonkeyPatch(), *settings, "run.trace_steps=[1]", "loop.max_staleness=0")
    run.learner = LargeLearner
    run.train("run.dir=undisturbed")
    errors = finish(lambda: run.train("run.dir=disk"), folder / "disk", folder / "disk" / "a", more_kib=8)
    full, undisturbed = folder / "disk" / "a", folder / "undisturbed" / "a"
    assert _learnt(full) == _learnt(undisturbed)
    for when in ("before", "after"):
        assert (full / f"heldout_{when}.jsonl").read_text() == (undisturbed / f"heldout_{when}.jsonl").read_text()
    assert len([*full.glob("rollouts/*.parquet")]) == STEPS
    # An evaluation that fails after its step was saved is missing.
    for file in (*full.glob("rollouts/*.parquet"), *full.glob("evaluations/step-*/predictions/*.parquet")):
        assert pq.read_table(file).equals(pq.read_table(undisturbed / file.relative_to(full))), file
    return errors


def _learnt(run: Path) -> list[dict[str, float]]:
    """Metrics without timings, and without evaluations, which are collected at the step at which they are done."""
    return [
        {key: value for key, value in row.items() if not key.startswith("evaluation/")}
        for row in without_timings(metrics(run))
    ]


def sft(folder: Path) -> list[str]:
    """Supervised fine-tuning of the packaged policy."""
    config, console = load_config("demo", SFT), Console(quiet=True)
    fine_tune(config, folder / "undisturbed", console)
    out = folder / "disk" / "out"
    errors = finish(lambda: fine_tune(config, out, console), folder / "disk", out, more_kib=6 * KIB)
    assert rows(out) == rows(folder / "undisturbed")
    assert (out / "model.safetensors").read_bytes() == (folder / "undisturbed" / "model.safetensors").read_bytes()
    return errors


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    (folder / "errors.json").write_text(json.dumps({"train": train, "sft": sft}[sys.argv[1]](folder)))
