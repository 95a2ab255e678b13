"""Models of Qwen2.5-VL's architecture with random weights, to measure speed and memory without the real weights.

``python -m benchmarks.random_model FOLDER`` writes one of the 3B's shape (7.5 GB in bf16) with the tiny policy's
tokenizer, padded to the real vocabulary size; then ``geovlm-ray train debug-gpu model.path=FOLDER`` or ``python -m
benchmarks.throughput --recipe debug-gpu model.path=FOLDER``. ``--shape mid`` writes one that two cores can train. Their
log-probs are not meaningful.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from geovlm_ray.model.loading import load_processor, model_folder


@dataclass(frozen=True)
class Shape:
    """Sizes of the language model and of the vision tower, and the dtype of the saved weights."""

    text: dict[str, Any]
    vision: dict[str, Any]
    dtype: torch.dtype


UNUSED_IDS = 271
"""Output logits of Qwen2.5-VL-3B beyond its tokenizer of 151,665 tokens."""
PATCHES = {"patch_size": 14, "window_size": 112}
SHAPES = {
    "3b": Shape(
        text={
            "vocab_size": 151_936,
            "hidden_size": 2048,
            "intermediate_size": 11_008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32_768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
        },
        vision={
            **PATCHES,
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        dtype=torch.bfloat16,
    ),
    # The 3B's proportions: a fifth of the weights in the vision tower, grouped-query attention, mostly windowed vision
    # blocks. The vocabulary is the tiny policy's.
    "mid": Shape(
        text={
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 10,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [8, 12, 12]},
        },
        vision={
            **PATCHES,
            "depth": 8,
            "hidden_size": 256,
            "intermediate_size": 684,
            "num_heads": 4,
            "fullatt_block_indexes": [3, 7],
        },
        dtype=torch.float32,
    ),
}
# One layer of the 3B's width with the mid shape's vision tower: few tensors, of realistic size.
_WIDE = {k: v for k, v in SHAPES["3b"].text.items() if k != "vocab_size"}
SHAPES["layer"] = replace(SHAPES["mid"], text={**_WIDE, "num_hidden_layers": 1})
# For smoke runs: about the tiny policy's size.
SHAPES["small"] = replace(
    SHAPES["mid"],
    text={
        **SHAPES["mid"].text,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [4, 6, 6]},
    },
    vision={
        **PATCHES,
        "depth": 2,
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_heads": 3,
        "fullatt_block_indexes": [1],
    },
)


def main() -> int:
    """Write the model to FOLDER."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--shape", choices=list(SHAPES), default="3b", help="default: 3b")
    arguments.add_argument("--layers", type=int, help="language layers (default: the shape's)")
    options = arguments.parse_args()
    shape = SHAPES[options.shape]
    if options.layers:
        shape = replace(shape, text={**shape.text, "num_hidden_layers": options.layers})
    model = write_model(options.folder, shape)
    total, embeddings = model.num_parameters(), model.get_input_embeddings().weight.numel()
    print(f"Model: {options.folder.resolve()} ({total / 1e6:,.1f} million weights, {embeddings / 1e6:,.1f} embed)")
    return 0


def mid_model(folder: Path) -> Path:
    """Write a model of 45 million fp32 weights, which encodes a 448 x 448 image as 256 tokens; returns its folder."""
    write_model(folder, SHAPES["mid"])
    return folder


def endless(source: Path, folder: Path) -> Path:
    """Copy a model without its EOS token, so that all completions have the maximum length; returns the copy."""
    shutil.copytree(source, folder)
    processor = load_processor(source)
    processor.tokenizer.eos_token = None
    processor.save_pretrained(folder)
    return folder


def write_model(folder: Path, shape: Shape) -> Qwen2_5_VLForConditionalGeneration:
    """Write a model with random weights (fixed seed) and the tiny policy's tokenizer."""
    tiny = model_folder("tiny")
    vocabulary = shape.text.get("vocab_size", AutoConfig.from_pretrained(tiny).text_config.vocab_size)
    processor = load_processor(tiny)
    processor.image_processor.size = {"shortest_edge": 28 * 28, "longest_edge": 1280 * 28 * 28}
    processor.save_pretrained(folder)
    fill_vocabulary(folder / "tokenizer.json", vocabulary - UNUSED_IDS)
    # Filler tokens move the special ones to the end of the vocabulary.
    token_id = load_processor(folder).tokenizer.convert_tokens_to_ids
    end, pad = token_id("<|im_end|>"), token_id("<|endoftext|>")
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": vocabulary,
            **shape.text,
            "bos_token_id": None,
            "eos_token_id": end,
            "pad_token_id": pad,
        },
        vision_config={**shape.vision, "out_hidden_size": shape.text["hidden_size"]},
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(shape.dtype)
    try:
        model = Qwen2_5_VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = pad
    model.save_pretrained(folder)
    return model


def fill_vocabulary(tokenizer: Path, size: int) -> None:
    """Add filler tokens, which occur in no text, to a tokenizer.json until its vocabulary has ``size`` tokens."""
    content = json.loads(tokenizer.read_text())
    vocabulary = content["model"]["vocab"]
    taken = {*vocabulary.values(), *(token["id"] for token in content["added_tokens"])}
    vocabulary.update({f"<filler-{i}>": i for i in range(size) if i not in taken})
    tokenizer.write_text(json.dumps(content))


if __name__ == "__main__":
    sys.exit(main())
