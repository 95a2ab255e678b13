"""A run on a cluster of its own that meets three faults; `benchmarks.faults` has many of them."""

from __future__ import annotations

import pytest

from benchmarks import faults
from benchmarks.nodes import available

pytestmark = [pytest.mark.slow, pytest.mark.skipif(available() is not None, reason=str(available()))]


def test_no_sample_is_lost_or_counted_twice_whatever_dies() -> None:
    outcome = faults.run(seed=3, engine=False, faults=3, redis=available(redis=True) is None)
    assert not outcome.problems
    assert outcome.finished or outcome.rightly_ended
    assert outcome.recovery
