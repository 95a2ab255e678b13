"""A learner of two processes does what a learner of one does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.ranks import check_two_ranks_equal_one

pytestmark = pytest.mark.slow


def test_two_ranks_equal_one_and_either_resumes_from_the_others_checkpoint(tmp_path: Path) -> None:
    check_two_ranks_equal_one(("learner.kl_beta=0.1", "learner.mini_batches=2"), tmp_path)
