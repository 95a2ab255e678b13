"""Qwen2.5-VL (arXiv 2502.13923): M-RoPE with three axes, window attention in the vision tower, boxes in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, Qwen2_5_VLForConditionalGeneration

from geovlm_ray.model.families.base import LoraTargets, ModelFamily


class Qwen25VL(ModelFamily):
    """Qwen2.5-VL."""

    model_type = "qwen2_5_vl"
    title = "Qwen2.5-VL"
    adapter_modules = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    vision_modules = ("qkv", "proj")
    """Linear layers of the vision tower besides those named as in the language model."""
    box_dialect = "json"
    box_frame = "shown"

    @property
    def model_class(self) -> type[PreTrainedModel]:
        """The model class of transformers."""
        return Qwen2_5_VLForConditionalGeneration

    def lora_target_pattern(self, targets: LoraTargets) -> str:
        """Regular expression of the full names of the modules that get a LoRA adapter."""
        if targets == "language":
            return rf".*language_model\..*\.({'|'.join(self.adapter_modules)})"
        return rf".*\.({'|'.join((*self.adapter_modules, *self.vision_modules))})"

    def is_vision(self, parameter: str) -> bool:
        """Whether a parameter belongs to the vision tower, merger included."""
        return ".visual." in parameter

    def sharded_layers(self, base: nn.Module) -> Sequence[nn.Module]:
        """Every block of the vision tower and every layer of the language model."""
        return [*base.model.visual.blocks, *base.model.language_model.layers]

    def use_attention(self, base: nn.Module, name: str) -> None:
        """Switch the language model to a registered attention implementation."""
        base.model.language_model.config._attn_implementation = name

    def use_vision_attention(self, base: nn.Module, name: str) -> None:
        """Switch the vision tower to a registered attention implementation."""
        base.model.visual.config._attn_implementation = name

    def image_token_id(self, config: PreTrainedConfig) -> int:
        """Id of ``<|image_pad|>``."""
        return config.image_token_id

    def positions(
        self, base: nn.Module, input_ids: torch.Tensor, image_grid_thw: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """M-RoPE positions [3, B, L]: time, height, width."""
        types = (input_ids == self.image_token_id(base.config)).long()
        axes, _ = base.model.get_rope_index(
            input_ids, types, image_grid_thw=image_grid_thw, attention_mask=attention_mask
        )
        return axes

    def hidden_states(
        self,
        base: nn.Module,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor,
        positions: torch.Tensor,
        spans: Any,
    ) -> torch.Tensor:
        """Last hidden states [L, width] of a row; without images, a blank one runs with its features times 0."""
        device = base.device
        ids = input_ids[None].to(device)
        if len(image_grid_thw):
            inputs = {
                "input_ids": ids,
                "pixel_values": pixel_values.to(device),
                "image_grid_thw": image_grid_thw.to(device),
            }
        else:
            features = base.model.get_image_features(*_blank_image(base.config.vision_config, device)).pooler_output
            inputs = {"inputs_embeds": base.get_input_embeddings()(ids) + 0 * torch.cat(list(features)).sum()}
        return base.model(
            **inputs,
            attention_mask={"full_attention": spans},
            position_ids=positions[:, None].to(device),
            use_cache=False,
        ).last_hidden_state[0]


def _blank_image(vision: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches and grid of the smallest possible image, all zero."""
    side = vision.spatial_merge_size
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return torch.zeros(side**2, values, device=device), torch.tensor([[1, side, side]], device=device)
