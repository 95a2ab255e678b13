"""A two-rank learner trains like a single-rank one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.ranks import check_two_ranks_equal_one

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("resume", [False, pytest.param(True, marks=pytest.mark.long)])
def test_two_ranks_equal_one(resume: bool, tmp_path: Path) -> None:
    check_two_ranks_equal_one(("learner.kl_beta=0.1", "learner.mini_batches=2"), tmp_path, resume=resume)
