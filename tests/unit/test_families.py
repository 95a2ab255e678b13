"""Model families: the error for an unknown one, and one that is registered from outside the package."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from benchmarks.random_families import CONFIGS, build, save
from geovlm_ray.cli import main
from geovlm_ray.config import load_config, to_yaml
from geovlm_ray.core.errors import ModelError
from geovlm_ray.core.schema import Prompt
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.learner.sft.batches import SftCollator
from geovlm_ray.learner.sft.config import SftConfig
from geovlm_ray.learner.sft.trainer import SftTrainer
from geovlm_ray.model.config import LoraSettings, ModelConfig
from geovlm_ray.model.families import FAMILIES, family_of
from geovlm_ray.model.families.base import LoraTargets
from geovlm_ray.model.families.qwen2_5_vl import Qwen25VL
from geovlm_ray.model.loading import load_model, load_processor, model_folder
from geovlm_ray.model.prompts import PromptEncoder
from tests.unit.datasets import write_image

pytestmark = pytest.mark.slow


class RenamedConfig(Qwen2_5_VLConfig):
    """Configuration of a copy of Qwen2.5-VL under another name."""

    model_type = "renamed_vl"


class RenamedModel(Qwen2_5_VLForConditionalGeneration):
    """A copy of Qwen2.5-VL under another name."""

    config_class = RenamedConfig


class Renamed(Qwen25VL):
    """The family of the copy."""

    model_type = "renamed_vl"
    title = "Renamed"

    @property
    def model_class(self) -> type[PreTrainedModel]:
        return RenamedModel


@pytest.fixture
def renamed(tmp_path: Path) -> Path:
    """The tiny policy as a model of the renamed family."""
    folder = tmp_path / "renamed"
    shutil.copytree(model_folder("tiny"), folder)
    # Under transformers' own parameter names: its key conversions are by model_type.
    weights = load_model(ModelConfig(), model_folder("tiny"), torch.device("cpu"), seed=0).state_dict()
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "renamed_vl"}))
    return folder


def test_unknown_family_is_an_error_that_names_the_known_ones(renamed: Path) -> None:
    known = ", ".join(map(repr, FAMILIES))
    message = rf"renamed: expected .* type {known}; a new one takes .*, found model_type 'renamed_vl'"
    with pytest.raises(ModelError, match=message):
        model_folder(str(renamed))


@pytest.mark.parametrize("model_type", CONFIGS)
def test_adapter_covers_the_linear_layers_of_the_towers_that_it_is_for(model_type: str, tmp_path: Path) -> None:
    folder = save(model_type, tmp_path)
    layers = {}
    for targets in get_args(LoraTargets):
        lora = LoraSettings(rank=4, targets=targets)
        model = load_model(ModelConfig(lora=lora), folder, torch.device("cpu"), seed=0)
        names = [name.removesuffix(".lora_A.default") for name, _ in model.named_modules() if "lora_A.def" in name]
        layers[targets] = {name.removeprefix("base_model.model.") for name in names}
    linear = {name for name, layer in build(model_type)[0].named_modules() if isinstance(layer, nn.Linear)}
    mergers = {name for name in linear if re.search(r"visual\.merger\.mlp", name)}
    assert layers["language"] == {name for name in linear if "language_model" in name}
    assert layers["all"] == linear - mergers - {"lm_head"}


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4, targets="all")])
def test_family_registered_from_outside_trains_like_the_original(
    lora: LoraSettings | None, renamed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, "renamed_vl", Renamed())
    results = []
    for folder in (model_folder(str(renamed)), model_folder("tiny")):
        config = ModelConfig(lora=lora)
        model = load_model(config, folder, torch.device("cpu"), seed=0)
        encoder = PromptEncoder(load_processor(folder), load_config("demo").prompt)
        trainer = SftTrainer(
            model, encoder.processor, config, SftConfig(lr=1e-3, warmup_steps=0, steps=4), torch.device("cpu")
        )
        batch = SftCollator(encoder, "empty", 4096).batch(
            [Prompt(i, scene_example(task, 0, i)) for i, task in enumerate(("vqa", "temporal_classification"))]
        )
        rows = [trainer.step(batch) for _ in range(2)]
        results.append((type(family_of(model)), [tuple(row.values()) for row in rows]))
    assert [kind for kind, _ in results] == [Renamed, Qwen25VL]
    assert np.array_equal(results[0][1], results[1][1])


def test_family_of_a_plugin_is_exported_and_answers_by_its_recipe(
    renamed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(FAMILIES, "renamed_vl", Renamed())
    del FAMILIES["renamed_vl"]
    plugin, recipe, image = (tmp_path / name for name in ("mine.py", "recipe.yaml", "image.png"))
    plugin.write_text(
        "from geovlm_ray.model.families import FAMILIES\nfrom tests.unit.test_families import Renamed\n"
        "FAMILIES['renamed_vl'] = Renamed()\n"
    )
    recipe.write_text(to_yaml(load_config("demo")).replace("plugins: []", f"plugins: [{plugin}]"))
    write_image(image, 0)
    assert main(["chat", str(renamed), str(image), "--question", "what is it ?"]) == 1
    assert "found model_type 'renamed_vl'" in capsys.readouterr().err
    model = [str(renamed), "--recipe", str(recipe)]
    answer = ["--question", "what is it ?", "--out", str(tmp_path / "answer.png")]
    assert main(["chat", *model, str(image), *answer]) == 0
    assert main(["export", *model, str(tmp_path / "out")]) == 0
    assert "based on" in (tmp_path / "out" / "README.md").read_text()
    assert "Renamed" in (tmp_path / "out" / "README.md").read_text()
