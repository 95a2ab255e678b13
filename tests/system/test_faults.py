"""A run whose actors are killed: nothing is lost, nothing counts twice."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.system.runs import MINUTES, check_samples, metrics, started, train

pytestmark = pytest.mark.slow
STEPS = 8
TWO_ENGINES = ("placement.rollout.actors=2", "placement.rollout.num_cpus=0.5")


def kill(process: subprocess.Popen[bytes], actor: str) -> None:
    """SIGKILL one of a run's actors of a kind."""
    children = psutil.Process(process.pid).children(recursive=True)
    victims = [child.pid for child in children if child.name().startswith(f"ray::{actor}"[:15])]
    assert victims, [child.name() for child in children]
    os.kill(victims[0], signal.SIGKILL)


def test_a_killed_rollout_actor_costs_no_sample(tmp_path: Path) -> None:
    process = started(tmp_path, "killed", STEPS, 2, *TWO_ENGINES)
    kill(process, "RolloutActor")
    assert process.wait(10 * MINUTES) == 0, (tmp_path / "killed.log").read_text()[-4000:]
    check_samples(tmp_path / "killed", STEPS)
    assert all(row["parity/max_abs"] <= 1e-3 for row in metrics(tmp_path / "killed"))
    assert "another one takes its place" in (tmp_path / "killed.log").read_text()


def test_a_run_whose_learner_is_killed_goes_on_from_its_newest_checkpoint(tmp_path: Path) -> None:
    process = started(tmp_path, "killed", STEPS, 3)
    kill(process, "LearnerActor")
    assert process.wait(10 * MINUTES) == 0, (tmp_path / "killed.log").read_text()[-4000:]
    check_samples(tmp_path / "killed", STEPS)
    assert "the learner died" in (tmp_path / "killed.log").read_text()


def test_a_lost_learner_ends_a_run_that_may_not_restart_and_the_run_goes_on_when_started_again(tmp_path: Path) -> None:
    process = started(tmp_path, "killed", STEPS, 3, "run.restarts=0")
    kill(process, "LearnerActor")
    assert process.wait(10 * MINUTES) == 1
    said = (tmp_path / "killed.log").read_text()
    assert "the learner died" in said.partition("geovlm-ray train:")[2].partition("\n")[0]
    check_samples(train(tmp_path, "killed", STEPS, *TWO_ENGINES), STEPS)
