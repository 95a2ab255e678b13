"""Files of tensors: read back one by one, found by transformers, and errors that name the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from geovlm_ray.core.errors import RunError
from geovlm_ray.model.config import LoraSettings, ModelConfig
from geovlm_ray.model.loading import load_model, load_pretrained, load_processor, model_folder, save_description
from geovlm_ray.model.weight_files import divide, file_names, open_tensors, write_index, write_tensors

CPU = torch.device("cpu")


def write(tensors: dict[str, torch.Tensor], folder: Path, max_bytes: int) -> list[str]:
    files = divide(tensors, "model", max_bytes)
    write_index(files, folder, "model")
    for file, names in files.items():
        write_tensors({name: tensors[name] for name in names}, folder / file)
    return list(files)


@pytest.mark.parametrize("max_bytes", [10**9, 10**6])
def test_model_in_one_or_several_files_is_read_back_and_loads_in_transformers(max_bytes: int, tmp_path: Path) -> None:
    model = load_pretrained(model_folder("tiny"))
    names = file_names(model)
    tensors = {names[name]: parameter.detach() for name, parameter in model.named_parameters()}
    files = write(tensors, tmp_path, max_bytes)
    assert (files == ["model.safetensors"]) == (max_bytes == 10**9)
    assert max((tmp_path / file).stat().st_size for file in files[:-1] or files) <= max_bytes + 10**5
    with open_tensors(tmp_path, "model") as read:
        assert all(torch.equal(read.read(name), tensor) for name, tensor in tensors.items())
    save_description(model, load_processor(model_folder("tiny")), tmp_path)
    loaded = dict(load_pretrained(model_folder(str(tmp_path))).named_parameters())
    assert all(torch.equal(loaded[name], parameter) for name, parameter in model.named_parameters())


def test_missing_or_damaged_files_are_errors_that_name_the_folder(tmp_path: Path) -> None:
    tensors = {f"{k}.weight": torch.full((1000,), float(k)) for k in range(4)}
    files = write(tensors, tmp_path, 5000)
    assert len(files) > 1
    for content in (None, b"half"):
        file = tmp_path / files[0]
        file.unlink() if content is None else file.write_bytes(content)
        check_error(tmp_path, "model", "0.weight")
        file.touch()
    check_error(tmp_path, "optimizer", "absent")


def check_error(folder: Path, stem: str, name: str) -> None:
    message = rf"checkpoint {folder}: expected complete files {stem}\*"
    with pytest.raises(RunError, match=message), open_tensors(folder, stem) as files:
        files.read(name)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4)])
def test_model_without_its_weights_has_the_same_parameters_and_buffers(lora: LoraSettings | None) -> None:
    config, folder = ModelConfig(lora=lora), model_folder("tiny")
    loaded = load_model(config, folder, CPU, seed=0)
    empty = load_model(config, folder, CPU, seed=0, shard_rank=1)

    def described(model: nn.Module) -> list[tuple[str, torch.Size, torch.dtype, bool]]:
        return [(name, p.shape, p.dtype, p.requires_grad) for name, p in model.named_parameters()]

    assert described(empty) == described(loaded)
    buffers = dict(empty.named_buffers())
    assert all(torch.equal(buffers[name], buffer) for name, buffer in loaded.named_buffers())
