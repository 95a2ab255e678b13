"""A trained adapter to export, and commands that must succeed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.system.runs import environment, train


def command(*arguments: str, cwd: Path) -> str:
    """What a command prints that ends well."""
    done = subprocess.run(
        arguments, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def train_adapter(runs: Path) -> Path:
    """A run whose adapter answers differently from the tiny policy."""
    return train(runs, "lora", 4, "--local", "model.lora={rank: 8}", "learner.lr=1.0e-2", "learner.warmup_steps=0")
