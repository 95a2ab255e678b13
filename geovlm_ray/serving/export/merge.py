"""A whole model from a ref one: an adapter on its base, or merged into it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch import nn
from transformers import GenerationConfig, ProcessorMixin, Qwen2_5_VLForConditionalGeneration
from transformers.utils import logging as transformers_logging

from geovlm_ray.core.errors import ModelError
from geovlm_ray.core.files import read_object
from geovlm_ray.model.loading import load_processor, model_folder, save_policy
from geovlm_ray.model.prompts import EncodedPrompt, banned_token_ids
from geovlm_ray.serving.model_ref import ADAPTER_FILE, ModelRef

MADE_OF = "made_of.json"
"""Says of which weights a folder was made, and in which type."""
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


def whole_model(ref: ModelRef, folder: Path) -> Path:
    """The folder that transformers and vLLM load as it is: that of the model, or ``folder`` with the adapter merged in.

    Raises:
        ModelError: the adapter or its base does not load, ``folder`` holds something else, or cannot be written.
    """
    if not ref.adapter:
        return ref.path
    dtype = ref.config.model.dtype
    if folder.exists():
        if not is_made_of(folder, ref, dtype):
            raise ModelError(f"{folder}: expected no such folder, or the adapter {ref.path} merged, found another")
        return folder
    partial = folder.with_name(f".{folder.name}.partial")
    write_whole(ref, dtype, partial)
    partial.rename(folder)
    return folder


def write_whole(ref: ModelRef, dtype: str, folder: Path) -> None:
    """Write a whole model, any adapter merged in, with its processor into a folder, in place of what is there.

    Raises:
        ModelError: it does not load, or cannot be written.
    """
    model: Any = load_located(ref, dtype)
    if ref.adapter:
        model = model.merge_and_unload(safe_merge=True)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        save_policy(model, processor_of(ref), folder)
        (folder / MADE_OF).write_text(json.dumps(_made_of(ref, dtype)) + "\n")
    except OSError as error:
        raise ModelError(f"model {folder} cannot be written: {error.strerror or error}") from error


def is_made_of(folder: Path, ref: ModelRef, dtype: str) -> bool:
    """Whether a folder is what `write_whole` made of the same weights in the same type."""
    return (folder / MADE_OF).is_file() and read_object(folder / MADE_OF) == _made_of(ref, dtype)


def load_located(ref: ModelRef, dtype: str) -> nn.Module:
    """A model in memory, an adapter on top of its base; ``generate`` draws greedily, and no token banned in training.

    Raises:
        ModelError: it does not load.
    """
    transformers_logging.disable_progress_bar()
    try:
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(base_of(ref), dtype=getattr(torch, dtype))
        model.generation_config = _greedy(processor_of(ref), model.config.get_text_config().vocab_size)
        return PeftModel.from_pretrained(model, ref.path).eval() if ref.adapter else model.eval()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"model {ref.path}: its weights do not load: {' '.join(str(error).split())}") from error


def generate_greedy(model: nn.Module, prompt: EncodedPrompt, max_new_tokens: int) -> list[int]:
    """Ids of the completion of a prompt by a model of `load_located`, the end of the turn included where it comes."""
    ids = prompt.input_ids[None].to(model.device)
    drawn = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=prompt.mm_token_type_ids[None].to(model.device),
        pixel_values=prompt.pixel_values.to(model.device),
        image_grid_thw=prompt.image_grid_thw.to(model.device),
        max_new_tokens=max_new_tokens,
    )
    return drawn[0, ids.shape[1] :].tolist()


def base_of(ref: ModelRef) -> Path:
    """The folder of the whole model that an adapter belongs to, or the model's own.

    Raises:
        ModelError: it is not to be had.
    """
    if not ref.adapter:
        return ref.path
    name = str(read_object(ref.path / ADAPTER_FILE).get("base_model_name_or_path"))
    try:
        return model_folder(ref.trained.model.path if ref.trained else name)
    except ModelError as error:
        raise ModelError(f"adapter {ref.path}: expected its base model, found: {error}") from error


def processor_of(ref: ModelRef) -> ProcessorMixin:
    """Tokenizer and image processor, of the adapter's folder where it has them, else of its base.

    Raises:
        ModelError: they do not load.
    """
    own = any((ref.path / name).is_file() for name in PROCESSOR_FILES)
    return load_processor(ref.path if own else base_of(ref))


def _greedy(processor: ProcessorMixin, vocabulary: int) -> GenerationConfig:
    """What training draws from, without chance."""
    tokenizer = processor.tokenizer
    return GenerationConfig(
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=banned_token_ids(processor, vocabulary),
    )


def _made_of(ref: ModelRef, dtype: str) -> dict[str, str]:
    """A digest of a model's weights, with an adapter's settings, and the type in which they are written."""
    files = [*sorted(ref.path.glob("*.safetensors")), *ref.path.glob(ADAPTER_FILE)]
    digest = hashlib.sha256()
    try:
        for file in files:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    except OSError as error:
        raise ModelError(f"model {file}: expected to read it, found: {error.strerror}") from error
    return {"sha256": digest.hexdigest(), "dtype": dtype}
