"""Qwen3-VL (arXiv 2511.21631).

- Vision tower: learned positions, MLPs of two layers, and DeepStack: features of some of its blocks, each through a
  merger of its own, are added to the first layers of the language model. These mergers run between the blocks, so each
  is gathered on its own when weights are sharded, and each must get a gradient on every rank.
- Boxes: thousandths of the image, in JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel, Qwen3VLForConditionalGeneration

from geovlm_ray.model.families.qwen_vl import QwenVL


class Qwen3VL(QwenVL):
    """Qwen3-VL with dense layers."""

    model_type = "qwen3_vl"
    title = "Qwen3-VL"
    vision_modules: ClassVar = ("qkv", r"attn\.proj", "linear_fc1", "linear_fc2")

    @property
    def model_class(self) -> type[PreTrainedModel]:
        """The model class of transformers."""
        return Qwen3VLForConditionalGeneration

    def sharded_layers(self, base: nn.Module) -> Sequence[nn.Module]:
        """Every block and DeepStack merger of the vision tower and every layer of the language model."""
        return [*super().sharded_layers(base), *base.model.visual.deepstack_merger_list]

    def layer_inputs(self, encoded: Any, at_images: torch.Tensor, blank: bool) -> dict[str, Any]:
        """DeepStack features of the first layers [visual tokens, width]; those of a blank image times 0, at token 0."""
        features = [torch.cat(list(layer)) for layer in encoded.deepstack_features]
        if blank:
            at_images = torch.arange(at_images.shape[1], device=at_images.device)[None] == 0
            features = [0 * layer.sum(0, keepdim=True) for layer in features]
        return {"visual_pos_masks": at_images, "deepstack_visual_embeds": features}
