"""Loading of models and adapters: safetensors alone, all tensors, plain files, chat templates that end."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from geovlm_ray.core.errors import ModelError
from geovlm_ray.model import loading
from geovlm_ray.model.config import LoraSettings, ModelConfig
from geovlm_ray.model.loading import load_model, load_pretrained, load_processor, model_folder, restore_adapter

CPU = torch.device("cpu")
LORA = ModelConfig(lora=LoraSettings(rank=4))


class Marker:
    """Unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny policy."""
    return Path(shutil.copytree(model_folder("tiny"), tmp_path / "model"))


def rewrite(file: Path, change: object) -> None:
    tensors = load_file(file)
    change(tensors)  # type: ignore[operator]
    save_file(tensors, file, {"format": "pt"})


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Marker(tmp_path / "ran")))
    load_pretrained(model_folder(str(folder)))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"expected weights in \*\.safetensors, found none"):
        model_folder(str(folder))
    with pytest.raises(ModelError, match="expected weights that load"):
        load_pretrained(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), "1 missing (model.language_model.norm.weight)"),
        (lambda t: t.update(extra=torch.ones(2)), "1 unknown (extra)"),
        (lambda t: t.update({"model.norm.weight": torch.ones(3)}), "norm.weight"),
    ],
)
def test_tensors_that_are_missing_unknown_or_of_another_shape_are_errors(
    folder: Path, change: object, message: str
) -> None:
    rewrite(folder / "model.safetensors", change)
    with pytest.raises(ModelError) as error:
        load_pretrained(folder)
    assert message in str(error.value)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A saved adapter of the tiny policy."""
    model = load_model(LORA, model_folder("tiny"), CPU, seed=0)
    model.save_pretrained(tmp_path / "adapter")  # type: ignore[operator]
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t.pop(sorted(t)[0]), "1 missing (base_model.model."),
        (
            lambda t: t.update({"base_model.model.extra.lora_A.weight": torch.ones(2, 2)}),
            "1 unknown (base_model.model.e",
        ),
        (lambda t: t.update({sorted(t)[0]: torch.ones(1, 1)}), "1 of another shape (base_model.model."),
    ],
)
def test_adapter_tensors_are_all_there_and_fit(adapter: Path, change: object, problem: str) -> None:
    rewrite(adapter / "adapter_model.safetensors", change)
    with pytest.raises(ModelError) as error:
        restore_adapter(load_model(LORA, model_folder("tiny"), CPU, seed=0), adapter)
    assert problem in str(error.value)
    assert str(adapter) in str(error.value)


def test_adapter_weights_are_safetensors_alone(adapter: Path, tmp_path: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Marker(tmp_path / "ran")))
    with pytest.raises(ModelError, match=r"expected weights in adapter_model\.safetensors, found none"):
        restore_adapter(load_model(LORA, model_folder("tiny"), CPU, seed=0), adapter)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "extra"])
def test_pipes_in_a_model_folder_are_refused(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match=f"expected files and folders only, found a pipe, socket or device: {name}"):
        model_folder(str(folder))


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "no end after"),
        ("{{ raise_exception('no images') }}", "no images"),
        ("{{ undefined.attribute }}", "undefined"),
        ("{% if %}", "Expected an expression"),
    ],
)
def test_chat_templates_that_fail_or_do_not_end_are_refused(
    folder: Path, template: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "TEMPLATE_SECONDS", 0.5)
    (folder / "chat_template.jinja").write_text(template)
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps({k: v for k, v in json.loads(settings.read_text()).items() if k != "chat_template"}))
    with pytest.raises(ModelError, match=f"expected a chat template that renders a question, found: .*{problem}"):
        load_processor(folder)
    # Not only in the main thread.
    with ThreadPoolExecutor(1) as executor, pytest.raises(ModelError, match=problem):
        executor.submit(load_processor, folder).result()
