"""A whole model from an adapter and its base."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from geovlm_ray.errors import ModelError
from geovlm_ray.files import read_object
from geovlm_ray.locate import ADAPTER_FILE, Located
from geovlm_ray.policy.model import load_processor, resolve_model, save_policy

WEIGHTS = "adapter_model.safetensors"
MADE_OF = "merged_from.json"
"""Says of which adapter and base a merged folder was made."""


def whole_model(located: Located, folder: Path) -> Path:
    """The folder that transformers and vLLM load as it is: that of the model, or ``folder`` with the adapter merged in.

    Raises:
        ModelError: the adapter or its base does not load, or ``folder`` holds something else.
    """
    if not located.adapter:
        return located.path
    made_of = _made_of(located.path)
    if folder.exists():
        found = read_object(folder / MADE_OF) if (folder / MADE_OF).is_file() else None
        if found != made_of:
            raise ModelError(f"{folder}: expected no such folder, or the adapter {located.path} merged, found another")
        return folder
    model = merged(located, torch.bfloat16 if located.config.model.dtype == "bfloat16" else torch.float32)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_policy(model, processor_of(located), partial)
    (partial / MADE_OF).write_text(json.dumps(made_of))
    partial.rename(folder)
    return folder


def merged(located: Located, dtype: torch.dtype) -> Any:
    """The model in memory, with the adapter, if it is one, merged into its base.

    Raises:
        ModelError: it does not load.
    """
    base = base_of(located)
    try:
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(base, dtype=dtype)
        if not located.adapter:
            return model
        return PeftModel.from_pretrained(model, located.path).merge_and_unload(safe_merge=True)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"model {located.path}: its weights do not load: {' '.join(str(error).split())}") from error


def base_of(located: Located) -> Path:
    """The folder of the whole model that an adapter belongs to, or the model's own.

    Raises:
        ModelError: it is not to be had.
    """
    if not located.adapter:
        return located.path
    name = read_object(located.path / ADAPTER_FILE).get("base_model_name_or_path")
    try:
        return resolve_model(located.config.model.path if located.run else str(name))
    except ModelError as error:
        raise ModelError(f"adapter {located.path}: expected its base model {name!r}, found: {error}") from error


def processor_of(located: Located) -> AutoProcessor:
    """Tokenizer and image processor, of the adapter's folder where it has them, else of its base."""
    own = (located.path / "processor_config.json").is_file() or (located.path / "preprocessor_config.json").is_file()
    return load_processor(located.path if own else base_of(located))


def _made_of(adapter: Path) -> dict[str, str]:
    digest = hashlib.sha256()
    for name in (ADAPTER_FILE, WEIGHTS):
        try:
            digest.update((adapter / name).read_bytes())
        except OSError as error:
            raise ModelError(f"adapter {adapter}: expected {name}, found: {error.strerror}") from error
    return {"adapter": str(adapter.absolute()), "sha256": digest.hexdigest()}
