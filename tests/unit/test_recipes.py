"""Every recipe that ships is valid, and says what it would run where."""

from __future__ import annotations

import pytest
import torch

from geovlm_ray.cli import main
from geovlm_ray.config import load_config, recipe_names
from geovlm_ray.room import placement


def test_the_three_recipes_ship() -> None:
    assert {"demo", "debug-gpu", "geovlm-r1"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_dry_run_prints_what_would_run_where(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code = main(["train", name, "--dry-run"])
    shown = capsys.readouterr().out
    config = load_config(name)
    for kind in placement(config):
        assert kind.name in shown
    gpus = sum(kind.count * kind.num_gpus for kind in placement(config))
    if gpus > torch.cuda.device_count():
        assert code == 1
        assert f"asks for {gpus:g} GPUs" in " ".join(shown.split())
    if name == "demo":
        assert code == 0
