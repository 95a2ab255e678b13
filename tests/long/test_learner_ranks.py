"""Two-rank learners with adapters, and a run on Ray with two learner actors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.ranks import check_two_ranks_equal_one
from tests.system.runs import metrics, train

pytestmark = pytest.mark.slow
ADAPTER = "model.lora={rank: 8}", "learner.old_logprobs=learner"
ALL_LAYERS = ("model.lora={rank: 8, targets: all}",)
FROZEN_VISION = "model.freeze_vision=true", "learner.kl_beta=0.1", "learner.kl_in=reward", "learner.entropy_bonus=0.01"


@pytest.mark.parametrize("overrides", [ADAPTER, ALL_LAYERS, FROZEN_VISION])
def test_two_ranks_equal_one_and_checkpoints_are_interchangeable(overrides: tuple[str, ...], tmp_path: Path) -> None:
    check_two_ranks_equal_one(overrides, tmp_path, resume=True)


def test_two_learner_actors_train_like_one(tmp_path: Path) -> None:
    settings = "placement.rollout.num_cpus=0.5", "placement.learner.num_cpus=0.5"
    one = metrics(train(tmp_path, "one", 3, *settings))
    two = metrics(train(tmp_path, "two", 3, *settings, "placement.learner.actors=2"))
    # Later steps may differ: rounding can change a sampled token.
    for key in ("reward/mean", "grad_norm", "loss/policy", "learner/tokens"):
        assert two[0][key] == pytest.approx(one[0][key], rel=1e-3, abs=1e-6), key
    assert all(row["parity/max_abs"] <= 1e-3 for row in two)
