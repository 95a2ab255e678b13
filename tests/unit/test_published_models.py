"""Published models by the sizes in their config.json: counted weights, and --dry-run of the recipes for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoConfig

from benchmarks.random_families import make_processor
from geovlm_ray.cli import main
from geovlm_ray.training.gpu_memory import ModelShape

CONFIGS = {path.stem: path for path in (Path(__file__).parents[1] / "data" / "model_configs").glob("*.json")}
BILLIONS = {
    "Qwen2-VL-2B-Instruct": 2.21,
    "Qwen2-VL-7B-Instruct": 8.29,
    "Qwen2.5-VL-3B-Instruct": 3.75,
    "Qwen2.5-VL-7B-Instruct": 8.29,
    "Qwen3-VL-2B-Instruct": 2.13,
    "Qwen3-VL-4B-Instruct": 4.44,
    "Qwen3-VL-8B-Instruct": 8.77,
    "Qwen3-VL-30B-A3B-Instruct": 31.07,
    "Qwen3.5-9B": 9.41,
    "Qwen3.5-27B": 27.36,
}
"""Weights as the model pages state them; of Qwen3.5 without the layer that predicts several tokens."""
SCENES = ["data.source=scenes", "data.stages=[]", "data.frame=auto", "data.dialect=auto", "placement.gpu_memory_gb=141"]


@pytest.mark.parametrize("name", BILLIONS)
def test_weights_are_counted_as_published(name: str) -> None:
    shape = ModelShape.of(AutoConfig.for_model(**json.loads(CONFIGS[name].read_text())))
    assert shape.weights / 1e9 == pytest.approx(BILLIONS[name], abs=0.006)
    assert shape.pixels_per_token == (28 if "Qwen2" in name else 32)


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("geovlm-r1", "Qwen2.5-VL-3B-Instruct"),
        ("qwen3-vl", "Qwen3-VL-4B-Instruct"),
        *(("debug-gpu", name) for name in CONFIGS if name != "Qwen3.5-27B"),
    ],
)
def test_dry_run_estimates_what_fits(
    recipe: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = dry_run(recipe, name, tmp_path / "model", capsys)
    assert "model: ok" in output
    assert "answer format: ok" in output
    assert "GPU memory: ok" in output
    assert "Estimated memory of a GPU of 141 GiB" in output


def test_dry_run_refuses_what_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = dry_run("qwen3-vl", "Qwen3-VL-30B-A3B-Instruct", tmp_path / "model", capsys)
    assert "GPU memory: learner: expected to take at most 126.9 GiB of a GPU of 141 GiB, found about 647" in output


def dry_run(recipe: str, name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What --dry-run prints for a folder with the config.json of a model, and without its weights."""
    sizes = json.loads(CONFIGS[name].read_text())
    make_processor(sizes["vision_config"]["patch_size"]).save_pretrained(folder)
    shutil.copy(CONFIGS[name], folder / "config.json")
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    main(["train", recipe, "--dry-run", f"model.path={folder}", *SCENES])
    printed = capsys.readouterr()
    return " ".join((printed.out + printed.err).split())
