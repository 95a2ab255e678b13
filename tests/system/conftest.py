"""Shared fixtures: a Ray cluster in this process, and one finished run that many tests read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from tests.system.adapter import train_adapter
from tests.system.golden import GoldenRun, golden_run


@pytest.fixture(scope="session")
def without_ray_settings() -> Iterator[None]:
    """No address or setting of Ray in the environment; at the end of the session, no cluster."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("RAY_")]:
            patch.delenv(name)
        yield
        ray.shutdown()


@pytest.fixture
def cluster(without_ray_settings: None) -> None:
    """A local Ray cluster, which tests share until `tests.long.clusters` ends it."""
    from actors.cluster import connect

    connect()


@pytest.fixture(scope="session")
def adapter_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished local run that trained an adapter (`tests.system.adapter`)."""
    return train_adapter(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> GoldenRun:
    """A finished run on Ray (`tests.system.golden`)."""
    return golden_run(tmp_path_factory.mktemp("runs"))
