"""Loading of a resolved model for inference, and merging of a PEFT adapter into its base model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from torch import nn
from transformers import GenerationConfig, ProcessorMixin

from geovlm_ray.core.errors import ModelError
from geovlm_ray.core.files import digest_of, read_object
from geovlm_ray.evaluation.contents import MODEL_FILES
from geovlm_ray.model.families import base_model, family_of
from geovlm_ray.model.loading import (
    adapter_weights,
    check_tensors,
    load_pretrained,
    load_processor,
    model_folder,
    save_model,
)
from geovlm_ray.model.prompts import EncodedPrompt, banned_token_ids
from geovlm_ray.serving.model_ref import ModelRef, adapter_base

SOURCE_FILE = "made_of.json"
"""File with digests of what a merged model was made of, and its dtype."""
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


def merged_model(ref: ModelRef, folder: Path, *, replace: bool = False) -> Path:
    """A folder that transformers and vLLM can load: the model's own, or ``folder`` with the adapter merged in.

    With ``replace``, a model that was merged into ``folder`` from another adapter or base model is replaced.

    Raises:
        ModelError: the adapter or its base model does not load, ``folder`` has other content or is not writable.
    """
    if not ref.adapter:
        return ref.path
    dtype = ref.config.model.dtype
    if folder.exists():
        if is_merged_from(folder, ref, dtype):
            return folder
        if not replace or not (folder / SOURCE_FILE).is_file():
            raise ModelError(
                f"{folder}: expected no such folder or the adapter {ref.path} merged into {base_of(ref)}, "
                "found other content"
            )
        shutil.rmtree(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    write_merged(ref, dtype, partial)
    partial.rename(folder)
    return folder


def write_merged(ref: ModelRef, dtype: str, folder: Path) -> None:
    """Write a model, with any adapter merged, and its processor to ``folder``; existing content is replaced.

    Raises:
        ModelError: the model does not load or the folder is not writable.
    """
    model: Any = load_for_inference(ref, dtype)
    if ref.adapter:
        model = model.merge_and_unload(safe_merge=True)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        save_model(model, processor_of(ref), folder)
        (folder / SOURCE_FILE).write_text(json.dumps(_source_digest(ref, dtype)) + "\n")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ModelError(f"model {folder} cannot be written: {error.strerror or error}") from error


def is_merged_from(folder: Path, ref: ModelRef, dtype: str) -> bool:
    """Whether `write_merged` wrote ``folder`` from the same files with the same dtype."""
    return (folder / SOURCE_FILE).is_file() and read_object(folder / SOURCE_FILE) == _source_digest(ref, dtype)


def load_for_inference(ref: ModelRef, dtype: str) -> nn.Module:
    """Load a model in eval mode, with any adapter unmerged; raises ModelError if the weights do not load.

    Its ``generation_config`` decodes greedily and suppresses the tokens that are banned in training.
    """
    model = load_pretrained(base_of(ref), dtype=getattr(torch, dtype))
    processor = processor_of(ref)
    model.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=processor.tokenizer.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
        suppress_tokens=banned_token_ids(processor, model.config.get_text_config().vocab_size),
    )
    if not ref.adapter:
        return model.eval()
    weights = adapter_weights(ref.path)
    try:
        adapted = PeftModel.from_pretrained(model, ref.path).eval()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(
            f"model {ref.path}: expected weights that load, found: {' '.join(str(error).split())}"
        ) from error
    found, expected = (
        {name: tuple(tensor.shape) for name, tensor in state.items()}
        for state in (weights, get_peft_model_state_dict(adapted))
    )
    check_tensors(f"adapter {ref.path}", found, expected)
    return adapted


def generate_greedy(model: nn.Module, prompt: EncodedPrompt, max_new_tokens: int) -> list[int]:
    """Token ids of the completion by a model from `load_for_inference`, including the EOS token if generated."""
    ids = prompt.input_ids[None].to(model.device)
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == family_of(model).image_token_id(base_model(model).config)).long(),
        pixel_values=prompt.images.pixel_values.to(model.device),
        image_grid_thw=prompt.images.grid_thw.to(model.device),
        max_new_tokens=max_new_tokens,
    )
    return output[0, ids.shape[1] :].tolist()


def base_of(ref: ModelRef) -> Path:
    """The folder of an adapter's base model, or of the model itself; raises ModelError if it is not available."""
    if not ref.adapter:
        return ref.path
    try:
        return model_folder(ref.trained.model.path if ref.trained else adapter_base(ref.path))
    except ModelError as error:
        raise ModelError(f"adapter {ref.path}: expected its base model, found: {error}") from error


def processor_of(ref: ModelRef) -> ProcessorMixin:
    """Tokenizer and image processor, from the adapter's folder if present there, else from its base model.

    Raises:
        ModelError: they do not load.
    """
    own = any((ref.path / name).is_file() for name in PROCESSOR_FILES)
    return load_processor(ref.path if own else base_of(ref))


def _source_digest(ref: ModelRef, dtype: str) -> dict[str, str]:
    """Digests of the files of a model and of an adapter's base model, and the dtype of the merged weights."""
    folders = {"model": ref.path, "base": base_of(ref)} if ref.adapter else {"model": ref.path}
    try:
        digests = {
            name: digest_of({file for pattern in MODEL_FILES for file in folder.glob(pattern)})
            for name, folder in folders.items()
        }
    except OSError as error:
        raise ModelError(f"model file {error.filename}: expected a readable file, found: {error.strerror}") from error
    return {**digests, "dtype": dtype}
