"""A random model of each family, of a few hundred thousand weights or wider, and its processor."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    PreTrainedModel,
    ProcessorMixin,
    Qwen2VLProcessor,
    Qwen3VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from geovlm_ray.model.families import FAMILIES
from geovlm_ray.model.loading import load_processor, model_folder, save_model

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
    "initializer_range": 0.05,
    "bos_token_id": None,
}
VISION = {"depth": 3, "hidden_size": 48, "intermediate_size": 96, "num_heads": 3, "initializer_range": 0.05}
QWEN3_VISION = {**VISION, "patch_size": 16, "out_hidden_size": 64, "num_position_embeddings": 64}
DEEPSTACK = {**QWEN3_VISION, "deepstack_visual_indexes": [0, 1]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128}
# vLLM reads the second.
EXPERTS |= {"decoder_sparse_step": 1, "norm_topk_prob": True}
LINEAR = {f"linear_{name}": size for name, size in (("num_key_heads", 2), ("num_value_heads", 4))}
HEADS = {"linear_key_head_dim": 128, "linear_value_head_dim": 128, "full_attention_interval": 2, "head_dim": 32}


UNTIED = ("qwen3_vl_moe", "qwen3_5")
"""Families of which the larger published models have an output layer of its own."""


def _rope(*section: int, **settings: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 10.0, "mrope_section": list(section), **settings}
    return {"rope_parameters": rope}


CONFIGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "qwen2_vl": (
        {**TEXT, "num_hidden_layers": 3, **_rope(4, 6, 6)},
        {"depth": 3, "embed_dim": 48, "hidden_size": 64, "num_heads": 3, "patch_size": 14, "mlp_ratio": 2},
    ),
    "qwen2_5_vl": (
        {**TEXT, "num_hidden_layers": 3, **_rope(4, 6, 6)},
        {**VISION, "patch_size": 14, "out_hidden_size": 64, "window_size": 112, "fullatt_block_indexes": [1]},
    ),
    "qwen3_vl": ({**TEXT, "num_hidden_layers": 3, "head_dim": 32, **_rope(6, 5, 5, mrope_interleaved=True)}, DEEPSTACK),
    "qwen3_vl_moe": (
        {**TEXT, "num_hidden_layers": 3, "head_dim": 32, **EXPERTS, **_rope(6, 5, 5, mrope_interleaved=True)},
        DEEPSTACK,
    ),
    "qwen3_5": (
        {
            **TEXT,
            **LINEAR,
            **HEADS,
            "num_hidden_layers": 4,
            **_rope(2, 1, 1, mrope_interleaved=True, partial_rotary_factor=0.25),
        },
        QWEN3_VISION,
    ),
}
"""Sizes of language model and vision tower by model_type."""
WIDTHS = {
    *("hidden_size", "intermediate_size", "moe_intermediate_size", "head_dim", "embed_dim", "out_hidden_size"),
    *("linear_key_head_dim", "linear_value_head_dim", "mrope_section"),
}
"""Sizes that grow with ``width``."""


@functools.cache
def tiny_processor() -> ProcessorMixin:
    """The processor of the tiny policy."""
    return load_processor(model_folder("tiny"))


def build(model_type: str, width: int = 1, seed: int = 0) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A random fp32 model, and a processor with the tiny policy's vocabulary and the patches of the family.

    ``width`` is a factor on the widths in `CONFIGS`.
    """
    tokenizer = tiny_processor().tokenizer
    token = tokenizer.convert_tokens_to_ids
    text, vision = (_widened(sizes, width) for sizes in CONFIGS[model_type])
    tied = model_type not in UNTIED
    ends = {"eos_token_id": token("<|im_end|>"), "pad_token_id": token("<|endoftext|>")}
    config = AutoConfig.for_model(
        model_type,
        text_config={**text, "vocab_size": len(tokenizer), "tie_word_embeddings": tied, **ends},
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=tied,
    )
    torch.manual_seed(seed)
    model = FAMILIES[model_type].model_class(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # transformers begins with biases of 0, which would hide that one is lost.
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    model.generation_config.update(**ends)
    return model, make_processor(vision["patch_size"])


def save(model_type: str, folder: Path, width: int = 1) -> Path:
    """Save the model of `build` with its processor."""
    model, processor = build(model_type, width)
    folder.mkdir(exist_ok=True)
    save_model(model, processor, folder)
    return folder


def _widened(sizes: Any, width: int) -> Any:
    if isinstance(sizes, list):
        return [size * width for size in sizes]
    return {
        key: _widened(value, width)
        if isinstance(value, dict | list) and (key in WIDTHS or isinstance(value, dict))
        else value * width
        if key in WIDTHS
        else value
        for key, value in sizes.items()
    }


def make_processor(patch: int) -> ProcessorMixin:
    """A processor with the vocabulary of the tiny policy, for patches of this side in pixels."""
    tiny = tiny_processor()
    size = {"shortest_edge": (2 * patch) ** 2, "longest_edge": (64 * patch) ** 2}
    images = Qwen2VLImageProcessor(size=size, patch_size=patch)
    if patch == 14:
        parts = {"video_processor": Qwen2VLVideoProcessor(size=size)}
        return Qwen2VLProcessor(images, tiny.tokenizer, chat_template=tiny.chat_template, **parts)
    parts = {"video_processor": Qwen3VLVideoProcessor(size=size, patch_size=patch)}
    return Qwen3VLProcessor(images, tiny.tokenizer, chat_template=tiny.chat_template, **parts)
