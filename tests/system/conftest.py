"""Fixtures that tests share: one Ray cluster in this process, and one run whose files many tests read."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import ray

from tests.system.golden import GoldenRun, golden_run


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Ray on this machine, whatever cluster the environment names."""
    from actors.cluster import connect

    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("RAY_")]:
            patch.delenv(name)
        connect()
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> GoldenRun:
    """A finished run on Ray (`tests.system.golden`)."""
    return golden_run(tmp_path_factory.mktemp("runs"))
