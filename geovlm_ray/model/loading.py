"""Loading and saving of a policy: a vision-language model, its processor and an optional LoRA adapter."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from geovlm_ray.core.errors import UNREADABLE, ModelError, RunError, reason_of
from geovlm_ray.core.files import MAX_BYTES, grant_umask_access
from geovlm_ray.core.time_limit import OutOfTime, time_limit
from geovlm_ray.model.config import PACKAGED, LoraSettings, ModelConfig, check_attention
from geovlm_ray.model.families import family_of, family_of_folder
from geovlm_ray.model.families.base import ModelFamily
from geovlm_ray.model.packed_attention import VISION_ATTENTION
from geovlm_ray.model.sharding import shard_like
from geovlm_ray.model.weight_files import divide, file_names, write_index, write_tensors

TEMPLATE_SECONDS = 10
"""Limit of the time in which a chat template renders one question."""
Shape = tuple[int, ...]

MAX_FILE_BYTES = 2**32
"""Size of the files that a model is divided into."""
TEXT_ENDINGS = (".json", ".jinja", ".txt")
TEMPLATE_ERRORS = (TemplateError, ValueError, TypeError, KeyError, OverflowError, RecursionError, OutOfTime)
"""What rendering a chat template may raise."""
OPENED_REASONING = re.compile(r"<think>\s*(?:</think>\s*)?\Z")
"""Reasoning that a chat template begins for the model."""
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")


def model_folder(path: str, *, weights: bool = True) -> Path:
    """The local folder of a model; a Hugging Face model ID is downloaded first, without its weights if not needed.

    Raises:
        ModelError: neither a folder nor a Hugging Face model, of an unknown family, or incomplete.
    """
    folder = Path(str(files("geovlm_ray.model") / "assets" / PACKAGED[path])) if path in PACKAGED else Path(path)
    if not folder.is_dir():
        folder = _from_hub(path)
        family_of_folder(folder)
        folder = _from_hub(path, "*.safetensors") if weights else folder
    check_plain_files(folder)
    family_of_folder(folder)
    if weights and not any(folder.glob("*.safetensors")):
        raise ModelError(f"model {folder}: expected weights in *.safetensors, found none")
    for file in folder.glob("*.safetensors"):
        _check_weights(file)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(f"model {folder}: expected a tokenizer ({' or '.join(TOKENIZER_FILES)}), found none")
    return folder


def check_plain_files(folder: Path) -> None:
    """Raise ModelError if a model or adapter folder holds something that is neither a file nor a folder.

    Also raised for a text that is larger than ``MAX_BYTES``.
    """
    for entry in sorted(folder.iterdir()):
        if entry.suffix in TEXT_ENDINGS and entry.is_file() and entry.stat().st_size > MAX_BYTES:
            raise ModelError(f"model {folder}: expected texts of at most {MAX_BYTES // 2**20} MiB, found {entry.name}")
        if not entry.is_file() and not entry.is_dir():
            found = "a broken link" if entry.is_symlink() and not entry.exists() else "a pipe, socket or device"
            raise ModelError(f"model {folder}: expected files and folders only, found {found}: {entry.name}")


def _check_weights(file: Path) -> None:
    """Raise ModelError if a safetensors file does not match its header."""
    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(f"model weights {file}: expected a complete safetensors file, found: {error}") from error


def _from_hub(name: str, *patterns: str) -> Path:
    """The folder of a model of the Hugging Face Hub, with its texts and the files that match the patterns."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=[*(f"*{ending}" for ending in TEXT_ENDINGS), *patterns]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"model {name!r}: expected a local folder or a Hugging Face model, found neither: {reason}"
        ) from error


def load_processor(folder: Path) -> ProcessorMixin:
    """The tokenizer and image processor of a model folder.

    Templates of reasoning models open the reasoning themselves: ``<think>`` after the start of the answer, or an empty
    ``<think></think>``. The response format has the model write these tags, so the processor leaves them out.

    Raises:
        ModelError: the processor cannot be loaded, or its chat template fails or takes more than `TEMPLATE_SECONDS`.
    """
    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        # Settings that are no Unicode text could not be saved with a checkpoint.
        json.dumps(processor.tokenizer.init_kwargs, ensure_ascii=False, default=str).encode()
    except UNREADABLE as error:
        raise ModelError(f"model {folder}: the processor cannot be loaded: {reason_of(error)}") from error
    user = {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "question"}]}
    system = {"role": "system", "content": [{"type": "text", "text": "system"}]}
    try:
        with time_limit(TEMPLATE_SECONDS):
            for turns in ([user], [system, user]):
                rendered = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except TEMPLATE_ERRORS as error:
        raise ModelError(f"model {folder}: expected a chat template that renders a question, found: {error}") from error
    if opened := OPENED_REASONING.search(rendered):
        template = processor.chat_template
        template = f"{{% set text %}}{template}{{% endset %}}{{{{ text.removesuffix({opened[0]!r}) }}}}"
        processor.chat_template = processor.tokenizer.chat_template = template
    return processor


def load_model(
    config: ModelConfig, folder: Path, device: torch.device, seed: int, shard_rank: int | None = None
) -> nn.Module:
    """The trainable model on ``device``; its vision tower is frozen if ``config.freeze_vision``.

    Trained weights are kept in fp32 regardless of ``config.dtype``; the frozen base model of a LoRA adapter is kept in
    ``config.dtype``. A model that is to be sharded over several ranks stays in host memory; on ranks other than 0 its
    base weights are memory that is not initialized, and not occupied until it is written.

    Raises:
        ConfigError: the package that ``config.attention`` needs is not installed.
        ModelError: the weights cannot be loaded.
    """
    check_attention(config)
    dtype = getattr(torch, config.dtype) if config.lora else torch.float32
    attention = "sdpa" if config.attention == "auto" else config.attention
    load = _without_weights if shard_rank else load_pretrained
    model: nn.Module = load(folder, dtype=dtype, attn_implementation=attention)
    if config.attention == "auto" and device.type == "cuda":
        family_of(model).use_vision_attention(model, VISION_ATTENTION)
    if config.freeze_vision:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not family_of(model).is_vision(name))
    if config.lora:
        torch.manual_seed(seed)
        modules = family_of(model).lora_target_pattern(config.lora.targets)
        lora = LoraConfig(r=config.lora.rank, lora_alpha=config.lora.alpha, target_modules=modules)
        model = get_peft_model(model, lora)
    return model.to(device) if shard_rank is None else model


def load_pretrained(folder: Path, **settings: Any) -> PreTrainedModel:
    """The model of a folder by the class of its family; ``settings`` go to ``from_pretrained``.

    Raises:
        ModelError: the weights cannot be loaded.
    """
    transformers_logging.disable_progress_bar()
    try:
        model, found = family_of_folder(folder).model_class.from_pretrained(
            folder, output_loading_info=True, use_safetensors=True, ignore_mismatched_sizes=True, **settings
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"model {folder}: expected weights that load, found: {reason}") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    mismatched = {name: tuple(shape) for name, shape, *_ in found.get("mismatched_keys", ())}
    present = {name: shape for name, shape in shapes.items() if name not in found["missing_keys"]}
    check_tensors(f"model {folder}", {**present, **mismatched, **dict.fromkeys(found["unexpected_keys"], ())}, shapes)
    return model


def _without_weights(folder: Path, **settings: Any) -> PreTrainedModel:
    """The model of a folder before its weights are read."""
    model_class = family_of_folder(folder).model_class
    with no_init_weights():
        model = model_class._from_config(model_class.config_class.from_pretrained(folder), **settings)
    model.tie_weights()
    return convert(model, settings["dtype"])


def convert(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The model with its parameters in ``dtype``, but those that engines keep in fp32."""
    family = family_of(model)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(family.dtype_of(name, dtype))
    return model


def autocast_context(config: ModelConfig, device: torch.device) -> torch.autocast:
    """Autocast context of forward passes: bf16 over fp32 weights; off for LoRA, whose base has ``config.dtype``."""
    bf16 = config.dtype == "bfloat16" and config.lora is None
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def save_adapter(
    model: PeftModel, processor: ProcessorMixin, folder: Path, weights: Mapping[str, torch.Tensor]
) -> None:
    """Save a PEFT adapter with these weights, keyed by parameter name, and the processor.

    Raises:
        OSError: writing failed.
    """
    try:
        model.save_pretrained(folder, state_dict=weights)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    processor.save_pretrained(folder)
    grant_umask_access(folder)


def save_model(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
    """Save a model and its processor as a folder that transformers and vLLM load.

    Not by ``save_pretrained``, which writes the experts of a mixture in a layout that vLLM does not read.

    Raises:
        OSError: writing failed.
    """
    family, names = family_of(model), file_names(model)
    tensors = {names[n]: family.in_files(n, p.detach()) for n, p in model.named_parameters()}
    files = divide(tensors, "model", MAX_FILE_BYTES)
    write_index(files, folder, "model")
    for file, members in files.items():
        write_tensors({name: tensors[name].contiguous() for name in members}, folder / file)
    save_description(model, processor, folder)


def save_description(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
    """Save what a model folder holds beside the weights.

    Raises:
        OSError: writing failed.
    """
    model.config.architectures, model.config.dtype = [type(model).__name__], model.dtype
    model.config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    processor.save_pretrained(folder)
    grant_umask_access(folder)


def save_state(state: Mapping[str, Any], file: Path) -> None:
    """Save the trainer state that a run resumes from.

    Raises:
        OSError: writing failed.
    """
    try:
        torch.save(state, file)
    except RuntimeError as error:
        raise OSError(f"writing {file.name} failed, possibly because the disk is full: {error}") from error


def restore_adapter(model: nn.Module, folder: Path) -> None:
    """Load the adapter that `save_adapter` wrote; with sharding, this rank's shard of each weight.

    Raises:
        ModelError: the weights cannot be loaded.
    """
    weights = adapter_weights(folder)
    # PEFT omits the adapter name from the keys of its files.
    parameters = {
        name.replace(".default.", "."): parameter for name, parameter in model.named_parameters() if "lora_" in name
    }
    check_tensors(
        f"adapter {folder}",
        {name: tuple(tensor.shape) for name, tensor in weights.items()},
        {name: tuple(parameter.shape) for name, parameter in parameters.items()},
    )
    for name, tensor in weights.items():
        parameter = parameters[name]
        parameter.detach().copy_(shard_like(parameter, tensor))


def adapter_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a PEFT adapter, from ``adapter_model.safetensors`` alone: other files could run code.

    Raises:
        ModelError: the file is absent or corrupt.
    """
    check_plain_files(folder)
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise ModelError(f"adapter {folder}: expected weights in {file.name}, found none")
    _check_weights(file)
    return load_file(file)


def check_tensors(what: str, found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> None:
    """Raise ModelError for tensors that are missing, unknown or of another shape; ``what`` names the model."""
    wrong = [n for n, shape in found.items() if n in expected and expected[n] != shape]
    problems = [
        f"{len(names)} {problem} ({', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''})"
        for problem, names in (
            ("missing", expected.keys() - found.keys()),
            ("unknown", found.keys() - expected.keys()),
            ("of another shape", set(wrong)),
        )
        if names
    ]
    if problems:
        raise ModelError(f"{what}: expected all weights of the model, found {' and '.join(problems)}")


def load_state(file: Path) -> dict[str, Any]:
    """Load the trainer state that `save_state` wrote.

    Raises:
        RunError: the file is missing or corrupt.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # For other files, torch's unpickler raises nearly any error.
        raise RunError(
            f"checkpoint {file}: expected a trainer state, found: {' '.join(str(error).split())[:200]}; remove "
            f"{file.parent} to resume from the previous checkpoint"
        ) from error


def engine_adapter_config(lora: LoraSettings, family: ModelFamily) -> dict[str, Any]:
    """PEFT configuration of the LoRA adapter, as vLLM reads it."""
    return {
        "peft_type": "LORA",
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": list(family.adapter_modules),
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
    }
