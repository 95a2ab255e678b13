"""What the Qwen vision-language models share: M-RoPE with three axes, one placeholder per visual token.

A family says what differs in its own file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from transformers import PreTrainedConfig

from geovlm_ray.model.families.base import LoraTargets, ModelFamily


class QwenVL(ModelFamily):
    """A Qwen vision-language model of transformers."""

    adapter_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    vision_modules: ClassVar[tuple[str, ...]]
    """Linear layers of the vision tower that a LoRA adapter with ``targets: all`` covers, as regular expressions."""
    box_dialect: str = "json"
    box_frame: Literal["shown", "percent", "permille"] = "permille"

    def lora_target_pattern(self, targets: LoraTargets) -> str:
        """Regular expression of the full names of the modules that get a LoRA adapter."""
        language = rf".*language_model\..*\.({'|'.join(self.adapter_modules)})"
        return language if targets == "language" else rf"{language}|.*visual\..*\.({'|'.join(self.vision_modules)})"

    def is_vision(self, parameter: str) -> bool:
        """Whether a parameter belongs to the vision tower, mergers included."""
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

    def mlp_width(self, text: PreTrainedConfig) -> int:
        """Width of the MLPs of the language model."""
        return text.intermediate_size

    def vision_widths(self, vision: PreTrainedConfig) -> tuple[int, int]:
        """Width of the blocks of the vision tower, and of their MLPs."""
        return vision.hidden_size, vision.intermediate_size

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
        embeddings = base.get_input_embeddings()(ids)
        blank = len(image_grid_thw) == 0
        images = _blank_image(base.config.vision_config) if blank else (pixel_values, image_grid_thw)
        encoded = base.model.get_image_features(*(tensor.to(device) for tensor in images), return_dict=True)
        features = torch.cat(list(encoded.pooler_output)).to(embeddings.dtype)
        at_images = ids == self.image_token_id(base.config)
        if blank:
            embeddings = embeddings + 0 * features.sum()
        else:
            embeddings = embeddings.masked_scatter(at_images[..., None], features)
        return base.model.language_model(
            inputs_embeds=embeddings,
            position_ids=positions[:, None].to(device),
            use_cache=False,
            spans=spans,
            **self.layer_inputs(encoded, at_images, blank),
        ).last_hidden_state[0]

    def layer_inputs(self, encoded: Any, at_images: torch.Tensor, blank: bool) -> dict[str, Any]:
        """More inputs of the language model, from the output of the vision tower.

        ``at_images`` [1, L] marks the visual tokens. Features of a blank image must contribute 0, but get a gradient.
        """
        return {}


def _blank_image(vision: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches and grid of the smallest possible image, all zero."""
    side = vision.spatial_merge_size
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return torch.zeros(side**2, values), torch.tensor([[1, side, side]])
