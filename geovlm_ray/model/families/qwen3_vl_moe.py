"""Qwen3-VL with mixture-of-experts layers, such as Qwen3-VL-30B-A3B (arXiv 2511.21631).

- As `qwen3_vl`, but each token goes through a few of many experts. The weights of all experts of a layer are one
  tensor, so that a LoRA adapter covers the attention layers alone.
- In files, the weights of experts are transposed.
- Engine and learner choose the experts of a token each on their own. In low precision they may choose differently where
  two experts have nearly the same weight; `learner.importance=mask` drops such tokens from the loss.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedConfig, PreTrainedModel, Qwen3VLMoeForConditionalGeneration

from geovlm_ray.model.families.qwen3_vl import Qwen3VL


class Qwen3VLMoe(Qwen3VL):
    """Qwen3-VL with mixture-of-experts layers."""

    model_type = "qwen3_vl_moe"
    title = "Qwen3-VL-MoE"
    adapter_modules = ("q_proj", "k_proj", "v_proj", "o_proj")

    @property
    def model_class(self) -> type[PreTrainedModel]:
        """The model class of transformers."""
        return Qwen3VLMoeForConditionalGeneration

    def in_files(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Weights of experts [experts, in, out], which the model has as [experts, out, in], and the other way round."""
        return tensor.transpose(1, 2) if ".mlp.experts." in name else tensor

    def mlp_width(self, text: PreTrainedConfig) -> int:
        """Width of all experts that a token goes through."""
        return text.num_experts_per_tok * text.moe_intermediate_size
