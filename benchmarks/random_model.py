"""A model of Qwen2.5-VL-3B's shape with random weights, to measure speed and memory without the real ones.

``python -m benchmarks.random_model FOLDER`` writes it (7.5 GB in bf16) with the tiny policy's tokenizer; then
``geovlm-ray train debug-gpu model.path=FOLDER`` or ``python -m benchmarks.throughput --recipe debug-gpu
model.path=FOLDER``. Its log-probs say nothing about quality.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from geovlm_ray.policy.model import load_processor, resolve_model

TEXT = {
    "vocab_size": 151_936,
    "hidden_size": 2048,
    "intermediate_size": 11_008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
}
VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 2048,
    "patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}


def main() -> int:
    """Build and write the model."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--layers", type=int, default=36, help="language layers (default: 36, the real number)")
    options = arguments.parse_args()
    tiny = resolve_model("tiny")
    small = AutoConfig.from_pretrained(tiny)
    config = Qwen2_5_VLConfig(
        text_config={
            **TEXT,
            "num_hidden_layers": options.layers,
            "bos_token_id": None,
            "eos_token_id": small.text_config.eos_token_id,
            "pad_token_id": small.text_config.pad_token_id,
        },
        vision_config=VISION,
        image_token_id=small.image_token_id,
        video_token_id=small.video_token_id,
        vision_start_token_id=small.vision_start_token_id,
        vision_end_token_id=small.vision_end_token_id,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = small.text_config.eos_token_id
    model.generation_config.pad_token_id = small.text_config.pad_token_id
    model.save_pretrained(options.folder)
    processor = load_processor(tiny)
    processor.image_processor.size = {"shortest_edge": 28 * 28, "longest_edge": 1280 * 28 * 28}
    processor.save_pretrained(options.folder)
    print(f"Model: {options.folder.resolve()} ({model.num_parameters() / 1e9:.2f} billion weights)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
