"""Qwen3.5 with dense layers.

- Three of four layers are linear attention (gated delta rule, arXiv 2412.06464): a convolution over the last tokens,
  and a state that is carried from token to token. `geovlm_ray.model.shared_state` runs them over a row: the prompt
  once, then every completion from the state at its end.
- Vision tower: as in Qwen3-VL, without DeepStack.
- Boxes: thousandths of the image, in JSON.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn
from transformers import PreTrainedModel, Qwen3_5ForConditionalGeneration

from geovlm_ray.model.families.qwen_vl import QwenVL
from geovlm_ray.model.shared_state import use_shared_state


class Qwen35(QwenVL):
    """Qwen3.5."""

    model_type = "qwen3_5"
    title = "Qwen3.5"
    adapter_modules = (*QwenVL.adapter_modules, "in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj")
    vision_modules: ClassVar = ("qkv", r"attn\.proj", "linear_fc1", "linear_fc2")

    @property
    def model_class(self) -> type[PreTrainedModel]:
        """The model class of transformers."""
        return Qwen3_5ForConditionalGeneration

    def use_attention(self, base: nn.Module, name: str) -> None:
        """Switch full attention to a registered implementation, and linear attention to the one for rows."""
        super().use_attention(base, name)
        for layer in base.model.language_model.layers:
            if layer.block_type == "linear_attention":
                use_shared_state(layer.linear_attn)
