"""Logging to Weights & Biases, an optional dependency."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from geovlm_ray.config import load_config
from geovlm_ray.core.errors import ConfigError
from geovlm_ray.observability.run_monitor import monitor_run


def test_missing_wandb_package_is_a_config_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = load_config("demo", [f"run.dir={tmp_path}", "run.wandb=mine"])
    with pytest.raises(ConfigError, match=r"run\.wandb=mine.*pip install wandb"), monitor_run(config):
        pass
    assert list(tmp_path.iterdir()) == []
