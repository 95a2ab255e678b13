"""A run whose learner is killed resumes from its newest checkpoint, with every sample trained on once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.runs import MINUTES, check_samples, kill_actor, started, train

pytestmark = pytest.mark.slow
STEPS = 8
TWO_ENGINES = ("placement.rollout.actors=2", "placement.rollout.num_cpus=0.5")


def test_a_run_whose_learner_is_killed_goes_on_from_its_newest_checkpoint(tmp_path: Path) -> None:
    process = started(tmp_path, "killed", STEPS, 3)
    kill_actor(process, "LearnerActor")
    assert process.wait(10 * MINUTES) == 0, (tmp_path / "killed.log").read_text()[-4000:]
    check_samples(tmp_path / "killed", STEPS)
    assert "the learner died" in (tmp_path / "killed.log").read_text()


def test_a_lost_learner_ends_a_run_that_may_not_restart_and_the_run_goes_on_when_started_again(tmp_path: Path) -> None:
    process = started(tmp_path, "killed", STEPS, 3, "run.restarts=0")
    kill_actor(process, "LearnerActor")
    assert process.wait(10 * MINUTES) == 1
    said = (tmp_path / "killed.log").read_text()
    assert "the learner died" in said.partition("geovlm-ray train:")[2].partition("\n")[0]
    check_samples(train(tmp_path, "killed", STEPS, *TWO_ENGINES), STEPS)
