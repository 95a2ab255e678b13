"""A whole model from a located one: an adapter on its base, or merged into it."""

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

from geovlm_ray.errors import ModelError
from geovlm_ray.files import read_object
from geovlm_ray.locate import ADAPTER_FILE, Located
from geovlm_ray.policy.model import load_processor, resolve_model, save_policy
from geovlm_ray.policy.prompts import EncodedPrompt, banned_token_ids

MADE_OF = "made_of.json"
"""Says of which weights a folder was made, and in which type."""
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


def whole_model(located: Located, folder: Path) -> Path:
    """The folder that transformers and vLLM load as it is: that of the model, or ``folder`` with the adapter merged in.

    Raises:
        ModelError: the adapter or its base does not load, ``folder`` holds something else, or cannot be written.
    """
    if not located.adapter:
        return located.path
    dtype = located.config.model.dtype
    if folder.exists():
        if not is_made_of(folder, located, dtype):
            raise ModelError(f"{folder}: expected no such folder, or the adapter {located.path} merged, found another")
        return folder
    partial = folder.with_name(f".{folder.name}.partial")
    write_whole(located, dtype, partial)
    partial.rename(folder)
    return folder


def write_whole(located: Located, dtype: str, folder: Path) -> None:
    """Write a whole model, any adapter merged in, with its processor into a folder, in place of what is there.

    Raises:
        ModelError: it does not load, or cannot be written.
    """
    model: Any = load_located(located, dtype)
    if located.adapter:
        model = model.merge_and_unload(safe_merge=True)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        save_policy(model, processor_of(located), folder)
        (folder / MADE_OF).write_text(json.dumps(_made_of(located, dtype)) + "\n")
    except OSError as error:
        raise ModelError(f"model {folder} cannot be written: {error.strerror or error}") from error


def is_made_of(folder: Path, located: Located, dtype: str) -> bool:
    """Whether a folder is what `write_whole` made of the same weights in the same type."""
    return (folder / MADE_OF).is_file() and read_object(folder / MADE_OF) == _made_of(located, dtype)


def load_located(located: Located, dtype: str) -> nn.Module:
    """A model in memory, an adapter on top of its base; ``generate`` draws greedily, and no token banned in training.

    Raises:
        ModelError: it does not load.
    """
    transformers_logging.disable_progress_bar()
    try:
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(base_of(located), dtype=getattr(torch, dtype))
        model.generation_config = _greedy(processor_of(located), model.config.get_text_config().vocab_size)
        return PeftModel.from_pretrained(model, located.path).eval() if located.adapter else model.eval()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"model {located.path}: its weights do not load: {' '.join(str(error).split())}") from error


def draw_greedily(model: nn.Module, prompt: EncodedPrompt, longest: int) -> list[int]:
    """Ids of the completion of a prompt by a model of `load_located`, the end of the turn included where it comes."""
    ids = prompt.input_ids[None].to(model.device)
    drawn = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=prompt.mm_token_type_ids[None].to(model.device),
        pixel_values=prompt.pixel_values.to(model.device),
        image_grid_thw=prompt.image_grid_thw.to(model.device),
        max_new_tokens=longest,
    )
    return drawn[0, ids.shape[1] :].tolist()


def base_of(located: Located) -> Path:
    """The folder of the whole model that an adapter belongs to, or the model's own.

    Raises:
        ModelError: it is not to be had.
    """
    if not located.adapter:
        return located.path
    name = str(read_object(located.path / ADAPTER_FILE).get("base_model_name_or_path"))
    try:
        return resolve_model(located.trained.model.path if located.trained else name)
    except ModelError as error:
        raise ModelError(f"adapter {located.path}: expected its base model, found: {error}") from error


def processor_of(located: Located) -> ProcessorMixin:
    """Tokenizer and image processor, of the adapter's folder where it has them, else of its base.

    Raises:
        ModelError: they do not load.
    """
    own = any((located.path / name).is_file() for name in PROCESSOR_FILES)
    return load_processor(located.path if own else base_of(located))


def _greedy(processor: ProcessorMixin, vocabulary: int) -> GenerationConfig:
    """What training draws from, without chance."""
    tokenizer = processor.tokenizer
    return GenerationConfig(
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=banned_token_ids(processor, vocabulary),
    )


def _made_of(located: Located, dtype: str) -> dict[str, str]:
    """A digest of a model's weights, with an adapter's settings, and the type in which they are written."""
    files = [*sorted(located.path.glob("*.safetensors")), *located.path.glob(ADAPTER_FILE)]
    digest = hashlib.sha256()
    try:
        for file in files:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    except OSError as error:
        raise ModelError(f"model {file}: expected to read it, found: {error.strerror}") from error
    return {"sha256": digest.hexdigest(), "dtype": dtype}
