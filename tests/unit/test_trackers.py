"""Experiment trackers: their settings and packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from geovlm_ray.config import load_config
from geovlm_ray.core.errors import ConfigError
from geovlm_ray.observability.run_monitor import monitor_run
from geovlm_ray.observability.trackers import TRACKERS, check_trackers
from geovlm_ray.observability.trackers.base import kept_id


@pytest.mark.parametrize("name", TRACKERS)
def test_missing_package_is_a_config_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    message = rf"run\.trackers: expected the package {name}.*pip install {name}"
    with pytest.raises(ConfigError, match=message):
        check_trackers([name])
    config = load_config("demo", [f"run.dir={tmp_path}", f"run.trackers=[{name}]"])
    with pytest.raises(ConfigError, match=message), monitor_run(config):
        pass
    assert list(tmp_path.iterdir()) == []


def test_unknown_tracker_is_named_with_the_closest() -> None:
    with pytest.raises(ConfigError, match=r"run\.trackers: .*found 'wandbb'; did you mean 'wandb'"):
        check_trackers(["wandbb"])


def test_renamed_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'run\.wandb'; it is now 'run\.trackers'"):
        load_config("demo", ["run.wandb=mine"])


def test_id_of_a_resumed_run_is_kept(tmp_path: Path) -> None:
    ids = iter("abc")
    assert [kept_id(tmp_path, name, lambda: next(ids)) for name in ("x", "y", "x")] == ["a", "b", "a"]
