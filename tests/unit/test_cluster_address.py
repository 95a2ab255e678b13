"""A command starts a cluster of its own unless RAY_ADDRESS names one."""

from __future__ import annotations

import pytest

from geovlm_ray.core.cluster_address import cluster_address


@pytest.mark.parametrize(("value", "address"), [("", None), ("local", None), ("auto", "auto"), ("h:6379", "h:6379")])
def test_empty_or_local_addresses_name_no_cluster(
    value: str, address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", value)
    assert cluster_address() == address
    monkeypatch.delenv("RAY_ADDRESS")
    assert cluster_address() is None
