"""Qwen2.5-VL (arXiv 2502.13923).

- Vision tower: window attention, gated MLPs named as in the language model.
- Boxes: pixels of the resized image.
"""

from __future__ import annotations

from typing import ClassVar

from transformers import PreTrainedModel, Qwen2_5_VLForConditionalGeneration

from geovlm_ray.model.families.qwen_vl import QwenVL


class Qwen25VL(QwenVL):
    """Qwen2.5-VL."""

    model_type = "qwen2_5_vl"
    title = "Qwen2.5-VL"
    vision_modules: ClassVar = ("qkv", r"attn\.proj", "gate_proj", "up_proj", "down_proj")
    box_frame = "shown"

    @property
    def model_class(self) -> type[PreTrainedModel]:
        """The model class of transformers."""
        return Qwen2_5_VLForConditionalGeneration
