"""Loading of models and adapters: safetensors alone, all tensors, plain files, chat templates that end."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.random_families import save
from geovlm_ray.core.errors import DataError, ModelError
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.model import loading
from geovlm_ray.model.config import LoraSettings, ModelConfig, PromptConfig
from geovlm_ray.model.loading import load_model, load_pretrained, load_processor, model_folder, restore_adapter
from geovlm_ray.model.prompts import PromptEncoder

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
        ("{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}", "no system turn"),
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


@pytest.mark.parametrize("opened", ["<think>\\n", "<think>\\n\\n</think>\\n\\n"])
def test_reasoning_that_the_template_opens_is_left_to_the_model(folder: Path, opened: str, tmp_path: Path) -> None:
    start = "<|im_start|>assistant\\n"
    example = replace(scene_example("vqa", 0, 0), question="Is {{ x }} there? <think>")
    expected = PromptEncoder(load_processor(folder), PromptConfig(image_size=112)).text(example)
    assert expected.endswith("<|im_start|>assistant\n")
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace(start, start + opened))
    processor = load_processor(folder)
    processor.save_pretrained(tmp_path / "saved")
    for each in (processor, load_processor(tmp_path / "saved")):
        assert PromptEncoder(each, PromptConfig(image_size=112)).text(example) == expected
        turn = [{"role": "user", "content": "?"}]
        assert "<think>" not in each.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)


def test_question_that_the_template_refuses_is_named(folder: Path) -> None:
    template = folder / "chat_template.jinja"
    condition = "{% if 'forbidden' in (messages | string) %}{{ raise_exception('not this') }}{% endif %}"
    template.write_text(condition + template.read_text())
    example = replace(scene_example("vqa", 0, 0), question="forbidden?")
    with pytest.raises(DataError, match=f"record {example.id!r}: expected a question .*, found: not this"):
        PromptEncoder(load_processor(folder), PromptConfig(image_size=112)).text(example)


def test_parameters_that_engines_keep_in_fp32_are_not_rounded(tmp_path: Path) -> None:
    folder = save("qwen3_5", tmp_path / "model")
    files = {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items() if k.endswith("A_log")}
    assert any((rates != rates.bfloat16()).any() for rates in files.values())
    config = ModelConfig(dtype="bfloat16", lora=LoraSettings(rank=4))
    adapted = load_model(config, folder, CPU, seed=0)
    others = load_model(config, folder, CPU, seed=0, shard_rank=1)
    whole = loading.convert(load_pretrained(folder, dtype=torch.float32), torch.bfloat16)
    for model in (adapted, whole):
        found = {name: p for name, p in model.named_parameters() if name.endswith("A_log")}
        assert all(any(torch.equal(p, rates) for rates in files.values()) for p in found.values())
        assert len(found) == len(files)
    dtypes = {name: p.dtype for name, p in adapted.named_parameters() if "lora_" not in name}
    assert set(dtypes.values()) == {torch.float32, torch.bfloat16}
    assert {name: p.dtype for name, p in others.named_parameters() if "lora_" not in name} == dtypes
