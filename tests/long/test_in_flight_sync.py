"""A run on Ray with in-flight weight updates."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.runs import metrics, train

pytestmark = pytest.mark.slow


def test_in_flight_weight_updates_keep_logprob_parity(tmp_path: Path) -> None:
    run = train(tmp_path, "flight", 4, "sync.mode=in_flight", "loop.max_staleness=2", "placement.rollout.num_cpus=0.5")
    rows = metrics(run)
    assert all(row["parity/max_abs"] <= 1e-3 for row in rows)
    assert all(row["staleness/max"] <= 2 for row in rows)
