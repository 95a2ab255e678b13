"""Tensors on disk: safetensors files of bounded size, written one after another and read tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from geovlm_ray.core.errors import ModelError, RunError


def file_names(model: PreTrainedModel) -> dict[str, str]:
    """The names that the parameters of a model have in its files, by their names in the model.

    Raises:
        ModelError: a tensor of the files is not one parameter.
    """
    meta = {name: torch.empty_like(parameter, device="meta") for name, parameter in model.named_parameters()}
    parameters = {id(tensor): name for name, tensor in meta.items()}
    # What is no parameter is one in another layout, under the same name.
    in_files = revert_weight_conversion(model, dict(meta))
    found = {parameters.get(id(tensor), name): name for name, tensor in in_files.items()}
    if found.keys() != meta.keys():
        raise ModelError(f"{type(model).__name__}: expected one tensor in its files for each parameter")
    return {name: found[name] for name in meta}


def divide(tensors: Mapping[str, torch.Tensor], stem: str, max_bytes: int) -> dict[str, list[str]]:
    """Names of tensors by the file that will hold them, each of at most ``max_bytes`` or one tensor.

    The files are named as transformers and vLLM expect it.
    """
    meta = {name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") for name, tensor in tensors.items()}
    plan = split_torch_state_dict_into_shards(
        meta, filename_pattern=f"{stem}{{suffix}}.safetensors", max_shard_size=max_bytes
    )
    return plan.filename_to_tensors


def write_index(files: Mapping[str, list[str]], folder: Path, stem: str) -> None:
    """Create the folder, and write the index of several files, by which transformers and vLLM find a tensor.

    Raises:
        OSError: writing failed.
    """
    folder.mkdir(exist_ok=True)
    if len(files) > 1:
        index = {"metadata": {}, "weight_map": {name: file for file, names in files.items() for name in names}}
        _index(folder, stem).write_text(json.dumps(index, indent=2) + "\n")


def write_tensors(tensors: dict[str, torch.Tensor], file: Path) -> None:
    """Write one file.

    Raises:
        OSError: writing failed.
    """
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(str(error)) from error


class TensorFiles:
    """Reads the tensors that were written to the files of one stem, one by one, with one file open at a time."""

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder = folder
        self._single = f"{stem}.safetensors"
        index = _index(folder, stem)
        self._files: dict[str, str] = json.loads(index.read_text())["weight_map"] if index.is_file() else {}
        self._opened = ""
        self._file: Any = None

    def read(self, name: str) -> torch.Tensor:
        """A tensor by its name in the files."""
        file = self._files.get(name, self._single)
        if file != self._opened:
            self._opened, self._file = file, safe_open(self._folder / file, framework="pt")
        return self._file.get_tensor(name)


@contextmanager
def open_tensors(folder: Path, stem: str) -> Iterator[TensorFiles]:
    """Open the files of one stem for reading.

    Raises:
        RunError: a file is missing or corrupt, or lacks a tensor that was asked for.
    """
    try:
        yield TensorFiles(folder, stem)
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(
            f"checkpoint {folder}: expected complete files {stem}*.safetensors, found: {' '.join(str(error).split())}; "
            f"remove {folder} to resume from the previous checkpoint"
        ) from error


def _index(folder: Path, stem: str) -> Path:
    return folder / f"{stem}.safetensors.index.json"
