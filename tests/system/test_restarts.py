"""A run that loses an actor restarts from its newest checkpoint, up to run.restarts times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from geovlm_ray.config import load_config
from geovlm_ray.core.errors import LostError, StartError
from geovlm_ray.core.interfaces import Components
from geovlm_ray.core.schema import Prompt, SampleGroup
from geovlm_ray.data.sampler import SceneStream
from geovlm_ray.training.preflight import Ready
from geovlm_ray.training.run import execute
from tests.unit.test_loop import Learner, Pool, Rewards


class CrashingLearner(Learner):
    """Crashes once at each given step; its checkpoint is one file with the weight version."""

    def __init__(self, crash_steps: list[int], error: type[LostError]) -> None:
        super().__init__()
        self.crash_steps = crash_steps
        self.error = error

    def step(self, groups: Sequence[SampleGroup], upcoming: Sequence[Prompt] = ()) -> dict[str, float]:
        if self.crash_steps and self.version == self.crash_steps[0]:
            self.crash_steps.pop(0)
            raise self.error("the learner died")
        return super().step(groups, upcoming)

    def save(self, folder: Path) -> None:
        (folder / "version").write_text(str(self.version))

    def load(self, folder: Path) -> None:
        self.version = int((folder / "version").read_text())


def run(folder: Path, crash_steps: list[int], restarts: int, error: type[LostError] = LostError) -> list[int]:
    """Train six steps with a checkpoint every two; returns the logged steps."""
    settings = ["run.steps=6", "rollout.prompts_per_step=3", "checkpoint.every=2", "evaluation.num_examples=0"]
    config = load_config("demo", [*settings, f"run.dir={folder}", "run.name=a", f"run.restarts={restarts}"])
    ready = Ready(Path("model"), SceneStream(0), ("vqa",))
    try:
        execute(
            config,
            ready,
            lambda *_: Components(Pool(), Rewards(), CrashingLearner(crash_steps, error)),
            Console(quiet=True),
        )
    finally:
        lines = (folder / "a" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_every_step_is_logged_once_across_learner_crashes(tmp_path: Path) -> None:
    assert run(tmp_path, [0, 3, 4], restarts=3) == [1, 2, 3, 4, 5, 6]


def test_run_fails_after_too_many_restarts_and_resumes_when_rerun(tmp_path: Path) -> None:
    with pytest.raises(LostError, match="the learner died"):
        run(tmp_path, [3, 3], restarts=1)
    assert run(tmp_path, [], restarts=1) == [1, 2, 3, 4, 5, 6]


def test_start_error_is_not_restarted(tmp_path: Path) -> None:
    crash_steps = [3, 3]
    with pytest.raises(StartError):
        run(tmp_path, crash_steps, restarts=3, error=StartError)
    assert crash_steps == [3]
