"""Qwen2-VL (arXiv 2409.12191).

- Vision tower: full attention, MLPs of two layers; its sizes have other names in config.json.
- Boxes: thousandths of the image between tags. The model's own tags are special tokens, which are never sampled; the
  same tags are therefore written as text.
"""

from __future__ import annotations

from typing import ClassVar

from transformers import PreTrainedConfig, PreTrainedModel, Qwen2VLForConditionalGeneration

from geovlm_ray.model.families.qwen_vl import QwenVL


class Qwen2VL(QwenVL):
    """Qwen2-VL."""

    model_type = "qwen2_vl"
    title = "Qwen2-VL"
    vision_modules: ClassVar = ("qkv", r"attn\.proj", "fc1", "fc2")
    box_dialect = "tagged"

    @property
    def model_class(self) -> type[PreTrainedModel]:
        """The model class of transformers."""
        return Qwen2VLForConditionalGeneration

    def vision_widths(self, vision: PreTrainedConfig) -> tuple[int, int]:
        """Width of the blocks of the vision tower, and of their MLPs; ``hidden_size`` is that of the language model."""
        return vision.embed_dim, int(vision.embed_dim * vision.mlp_ratio)
