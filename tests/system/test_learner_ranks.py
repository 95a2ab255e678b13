"""A two-rank learner trains like a single-rank one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.ranks import check_equal, check_two_ranks_equal_one, train_ranks

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("resume", [False, pytest.param(True, marks=pytest.mark.long)])
def test_two_ranks_equal_one(resume: bool, tmp_path: Path) -> None:
    check_two_ranks_equal_one(("learner.kl_beta=0.1", "learner.mini_batches=2"), tmp_path, resume=resume)


def test_learner_in_host_memory_trains_like_one_on_its_device(tmp_path: Path) -> None:
    settings, offload = ("learner.kl_beta=0.1",), "model.offload=true"
    (plain,) = train_ranks(1, settings, tmp_path, "", "plain")
    (offloaded,) = train_ranks(1, (*settings, offload), tmp_path, "", "offloaded")
    check_equal(plain, offloaded)


@pytest.mark.long
def test_state_moves_between_host_memory_and_device_and_between_ranks(tmp_path: Path) -> None:
    settings, offload = ("learner.kl_beta=0.1",), "model.offload=true"
    train_ranks(1, settings, tmp_path, "", "plain")
    train_ranks(1, (*settings, offload), tmp_path, "", "offloaded")
    (resumed,) = train_ranks(1, settings, tmp_path, "offloaded", "resumed")
    check_equal(resumed, train_ranks(2, (*settings, offload), tmp_path, "plain", "two")[0])
