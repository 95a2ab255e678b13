"""Learners of two processes with adapters, and two learner actors of a run on Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.ranks import check_two_ranks_equal_one
from tests.system.runs import metrics, train

pytestmark = pytest.mark.slow
ADAPTER = "model.lora={rank: 8}", "learner.old_logprobs=learner"
ALL_LAYERS = ("model.lora={rank: 8, targets: all}",)


@pytest.mark.parametrize("overrides", [ADAPTER, ALL_LAYERS])
def test_two_ranks_equal_one_and_either_resumes_from_the_others_checkpoint(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    check_two_ranks_equal_one(overrides, tmp_path)


def test_a_run_with_two_learner_actors_is_one_with_a_single_one(tmp_path: Path) -> None:
    settings = "placement.rollout.num_cpus=0.5", "placement.learner.num_cpus=0.5"
    one = metrics(train(tmp_path, "one", 3, *settings))
    two = metrics(train(tmp_path, "two", 3, *settings, "placement.learner.actors=2"))
    # Later draws may differ, where rounding decides between two tokens.
    for key in ("reward/mean", "grad_norm", "loss/policy", "learner/tokens"):
        assert two[0][key] == pytest.approx(one[0][key], rel=1e-3, abs=1e-6), key
    assert all(row["parity/max_abs"] <= 1e-3 for row in two)
