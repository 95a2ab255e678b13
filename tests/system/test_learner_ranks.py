"""A two-rank learner trains like a single-rank one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.ranks import check_two_ranks_equal_one

pytestmark = pytest.mark.slow


def test_two_ranks_equal_one_and_checkpoints_are_interchangeable(tmp_path: Path) -> None:
    check_two_ranks_equal_one(("learner.kl_beta=0.1", "learner.mini_batches=2"), tmp_path)
