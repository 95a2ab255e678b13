"""Helpers for export tests: a trained adapter, and commands that must succeed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from geovlm_ray.cli import main
from tests.system.runs import arguments, environment


def command(*arguments: str, cwd: Path) -> str:
    """Run a command that must exit with 0; returns its stdout."""
    result = subprocess.run(
        arguments, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert result.returncode == 0, f"{' '.join(arguments)}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


STEPS = 4
ADAPTER = (
    *("--local", "loop.max_staleness=0", "model.lora={rank: 8}"),
    *("learner.lr=1.0e-2", "learner.warmup_steps=0"),
)


def train_adapter(runs: Path) -> Path:
    """Train an adapter whose answers differ from those of the tiny policy."""
    assert main(arguments(runs, "adapter", STEPS, *ADAPTER)[1:]) == 0
    return runs / "adapter"
