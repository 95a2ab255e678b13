"""A run whose learner is killed resumes from its newest checkpoint and trains on every sample once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.runs import MINUTES, check_samples, kill_actor, start_and_wait, train

pytestmark = pytest.mark.slow
STEPS = 8
TWO_ENGINES = ("placement.rollout.actors=2", "placement.rollout.num_cpus=0.5")


def test_run_restarts_from_its_newest_checkpoint_after_losing_the_learner(tmp_path: Path) -> None:
    process = start_and_wait(tmp_path, "killed", STEPS, 3)
    kill_actor(process, "LearnerActor")
    assert process.wait(10 * MINUTES) == 0, (tmp_path / "killed.log").read_text()[-4000:]
    check_samples(tmp_path / "killed", STEPS)
    assert "the learner died" in (tmp_path / "killed.log").read_text()


def test_run_without_restarts_fails_after_losing_the_learner_and_resumes_when_rerun(tmp_path: Path) -> None:
    process = start_and_wait(tmp_path, "killed", STEPS, 3, "run.restarts=0")
    kill_actor(process, "LearnerActor")
    assert process.wait(10 * MINUTES) == 1
    log = (tmp_path / "killed.log").read_text()
    assert "the learner died" in log.partition("geovlm-ray train:")[2].partition("\n")[0]
    check_samples(train(tmp_path, "killed", STEPS, *TWO_ENGINES), STEPS)
