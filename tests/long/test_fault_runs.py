"""A run on its own cluster with three injected faults; `benchmarks.faults` runs many of them."""

from __future__ import annotations

import pytest

from benchmarks import faults
from benchmarks.nodes import available

pytestmark = [pytest.mark.slow, pytest.mark.skipif(available() is not None, reason=str(available()))]


def test_samples_are_neither_lost_nor_repeated_after_faults() -> None:
    outcome = faults.run(seed=3, engine=False, faults=3, redis=available(redis=True) is None)
    assert not outcome.problems
    assert outcome.finished or outcome.rightly_ended
    assert outcome.recovery
