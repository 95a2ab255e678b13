"""A run that loses a part goes on by itself from its newest checkpoint, as often as it may."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from geovlm_ray.config import load_config
from geovlm_ray.core.errors import LostError, StartError
from geovlm_ray.core.interfaces import Components
from geovlm_ray.core.schema import SampleGroup
from geovlm_ray.data.sampler import SceneStream
from geovlm_ray.training.preflight import Ready
from geovlm_ray.training.run import execute
from tests.unit.test_loop import Learner, Pool, Rewards


class Mortal(Learner):
    """Dies at some steps, once at each; a file is all that it leaves."""

    def __init__(self, dies_at: list[int], error: type[LostError]) -> None:
        super().__init__()
        self.dies_at = dies_at
        self.error = error

    def step(self, groups: Sequence[SampleGroup]) -> dict[str, float]:
        if self.dies_at and self.version == self.dies_at[0]:
            self.dies_at.pop(0)
            raise self.error("the learner died")
        return super().step(groups)

    def save(self, folder: Path) -> None:
        (folder / "version").write_text(str(self.version))

    def load(self, folder: Path) -> None:
        self.version = int((folder / "version").read_text())


def run(folder: Path, dies_at: list[int], restarts: int, error: type[LostError] = LostError) -> list[int]:
    """Train six steps with a checkpoint every two; returns the steps that are written down."""
    settings = ["run.steps=6", "rollout.prompts_per_step=3", "checkpoint.every=2", "evaluation.num_examples=0"]
    config = load_config("demo", [*settings, f"run.dir={folder}", "run.name=a", f"run.restarts={restarts}"])
    ready = Ready(Path("model"), SceneStream(0), ("vqa",))
    try:
        execute(config, ready, lambda *_: Components(Pool(), Rewards(), Mortal(dies_at, error)), Console(quiet=True))
    finally:
        lines = (folder / "a" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_every_step_is_written_down_once_whenever_the_learner_dies(tmp_path: Path) -> None:
    assert run(tmp_path, [0, 3, 4], restarts=3) == [1, 2, 3, 4, 5, 6]


def test_a_run_that_loses_a_part_too_often_ends_with_the_cause_and_goes_on_when_started_again(tmp_path: Path) -> None:
    with pytest.raises(LostError, match="the learner died"):
        run(tmp_path, [3, 3], restarts=1)
    assert run(tmp_path, [], restarts=1) == [1, 2, 3, 4, 5, 6]


def test_a_part_that_does_not_start_ends_the_run_at_once(tmp_path: Path) -> None:
    deaths = [3, 3]
    with pytest.raises(StartError):
        run(tmp_path, deaths, restarts=3, error=StartError)
    assert deaths == [3]
