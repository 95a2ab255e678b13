"""A local run that trains an adapter, which several tests read."""

from __future__ import annotations

from pathlib import Path

from geovlm_ray.cli import main
from tests.system.runs import arguments

STEPS = 4
ADAPTER = (
    *("--local", "loop.max_staleness=0", "model.lora={rank: 8}"),
    *("learner.lr=1.0e-2", "learner.warmup_steps=0"),
)


def train_adapter(runs: Path) -> Path:
    """Train an adapter whose answers differ from those of the tiny policy."""
    assert main(arguments(runs, "adapter", STEPS, *ADAPTER)[1:]) == 0
    return runs / "adapter"
