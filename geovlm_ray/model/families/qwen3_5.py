"""Qwen3.5 with dense layers.

- Three of four layers are linear attention (gated delta rule, arXiv 2412.06464): a convolution over the last tokens,
  and a state that is carried from token to token. `geovlm_ray.model.shared_state` runs them over a row: the prompt
  once, then every completion from the state at its end. The rates of decay (``A_log``) stay in fp32, as in the
  published files and in vLLM.
- Vision tower: as in Qwen3-VL, without DeepStack.
- Boxes: thousandths of the image, in JSON.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, Qwen3_5ForConditionalGeneration

from geovlm_ray.model.families.qwen_vl import QwenVL
from geovlm_ray.model.shared_state import use_shared_state

# transformers would round them with the other weights.
Qwen3_5ForConditionalGeneration._keep_in_fp32_modules_strict = {"A_log"}


class Qwen35(QwenVL):
    """Qwen3.5."""

    model_type = "qwen3_5"
    title = "Qwen3.5"
    adapter_modules = (*QwenVL.adapter_modules, "in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj")
    fp32_parameters = (".A_log",)
    vision_modules: ClassVar = ("qkv", r"attn\.proj", "linear_fc1", "linear_fc2")

    @property
    def model_class(self) -> type[PreTrainedModel]:
        """The model class of transformers."""
        return Qwen3_5ForConditionalGeneration

    def recurrent_state(self, text: PreTrainedConfig) -> int:
        """Bytes of the fp32 states of linear attention, a matrix for each head; those of convolutions are small."""
        layers = sum(kind == "linear_attention" for kind in text.layer_types)
        return 4 * layers * text.linear_num_value_heads * text.linear_key_head_dim * text.linear_value_head_dim

    def use_attention(self, base: nn.Module, name: str) -> None:
        """Switch full attention to a registered implementation, and linear attention to the one for rows."""
        super().use_attention(base, name)
        for layer in base.model.language_model.layers:
            if layer.block_type == "linear_attention":
                use_shared_state(layer.linear_attn)
