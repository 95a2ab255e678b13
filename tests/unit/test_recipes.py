"""Built-in recipes validate, and --dry-run prints their actors and resources."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from geovlm_ray.cli import main
from geovlm_ray.config import load_config, recipe_names
from geovlm_ray.training.capacity import resource_requests


def test_built_in_recipes_are_listed() -> None:
    assert {"demo", "debug-gpu", "geovlm-r1"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_dry_run_prints_every_actor_and_the_gpu_request(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code = main(["train", name, "--dry-run"])
    output = capsys.readouterr().out
    config = load_config(name)
    for request in resource_requests(config):
        assert request.name in output
    gpus = sum(request.count * request.num_gpus for request in resource_requests(config))
    if gpus > torch.cuda.device_count():
        assert code == 1
        assert f"requests {gpus:g} GPUs" in " ".join(output.split())
    if name == "demo":
        assert code == 0


@pytest.mark.parametrize("name", recipe_names())
def test_flash_attention_is_in_the_gpu_requirements(name: str) -> None:
    requirements = (Path(__file__).parents[2] / "requirements" / "gpu.txt").read_text()
    assert load_config(name).model.attention != "flash_attention_2" or "flash-attn==" in requirements


@pytest.mark.skipif(find_spec("flash_attn") is not None, reason="flash-attn is installed")
@pytest.mark.parametrize("command", [["train", "demo", "--local"], ["train", "demo"], ["sft", "demo", "--out=model"]])
def test_missing_attention_package_is_reported(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert main([*command, "model.attention=flash_attention_2"]) == 1
    assert "expected the package flash-attn, found none" in capsys.readouterr().err
