"""What the tests of single actors share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine, whatever cluster the environment names."""
    from actors.cluster import connect

    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("RAY_")]:
            patch.delenv(name)
        connect()
        yield
        ray.shutdown()
