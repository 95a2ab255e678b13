"""The interface of a model family: everything that the package must know about one vision-language architecture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

LoraTargets = Literal["language", "all"]


class ModelFamily(ABC):
    """One architecture of transformers, selected by the ``model_type`` of a model's ``config.json``.

    ``base`` in the methods is the model without a PEFT wrapper, an instance of `model_class`; images are in the format
    of `geovlm_ray.model.prompts.EncodedPrompt`.
    """

    model_type: str
    """``model_type`` of config.json."""
    title: str
    """Name for messages and model cards."""
    adapter_modules: tuple[str, ...]
    """Names of the linear layers of the language model that a LoRA adapter covers; engines load such adapters."""
    box_dialect: str
    """Dialect (`geovlm_ray.tasks.answers.box_dialects.DIALECTS`) in which the pretrained model writes boxes."""
    box_frame: Literal["shown", "percent", "permille"]
    """Unit of these boxes, as in ``data.frame``; ``shown``: pixels of the resized image."""

    fp32_parameters: tuple[str, ...] = ()
    """Endings of the names of parameters that engines keep in fp32, whatever the dtype of the model."""

    def dtype_of(self, parameter: str, dtype: torch.dtype) -> torch.dtype:
        """The dtype of a parameter, by its full name, in a model of this dtype."""
        return torch.float32 if parameter.endswith(self.fp32_parameters) else dtype

    @property
    @abstractmethod
    def model_class(self) -> type[PreTrainedModel]:
        """The model class of transformers."""

    @abstractmethod
    def lora_target_pattern(self, targets: LoraTargets) -> str:
        """Regular expression of the full names of the modules that get a LoRA adapter."""

    @abstractmethod
    def is_vision(self, parameter: str) -> bool:
        """Whether a parameter, by its full name, belongs to the vision tower."""

    @abstractmethod
    def sharded_layers(self, base: nn.Module) -> Sequence[nn.Module]:
        """Layers whose weights are gathered one at a time during a sharded forward pass."""

    def in_files(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A parameter as its files and the engines have it; given that, the parameter as the model has it."""
        return tensor

    @abstractmethod
    def use_attention(self, base: nn.Module, name: str) -> None:
        """Switch the language model to an implementation registered in `transformers.AttentionInterface`."""

    @abstractmethod
    def use_vision_attention(self, base: nn.Module, name: str) -> None:
        """Switch the vision tower to an implementation registered in `transformers.AttentionInterface`."""

    @abstractmethod
    def mlp_width(self, text: PreTrainedConfig) -> int:
        """Width of the MLPs of the language model that a token goes through."""

    @abstractmethod
    def vision_widths(self, vision: PreTrainedConfig) -> tuple[int, int]:
        """Width of the layers of the vision tower, and of their MLPs."""

    def recurrent_state(self, text: PreTrainedConfig) -> int:
        """Bytes that an engine keeps of a sequence, whatever its length, beside keys and values."""
        return 0

    @abstractmethod
    def image_token_id(self, config: PreTrainedConfig) -> int:
        """Id of the placeholder token of images; it occurs once per visual token."""

    @abstractmethod
    def positions(
        self, base: nn.Module, input_ids: torch.Tensor, image_grid_thw: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Rotary positions of sequences [B, L] that are padded on the right, [axes, B, L]; images in order."""

    @abstractmethod
    def hidden_states(
        self,
        base: nn.Module,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor,
        positions: torch.Tensor,
        spans: Any,
    ) -> torch.Tensor:
        """Last hidden states [L, width] of one row of token ids [L] with positions [axes, L].

        ``spans`` must reach the attention implementation set by `use_attention` as the keyword ``spans``. A row without
        images must still run the vision tower, on a blank image: the ranks of a sharded policy synchronize at every
        layer, in the backward pass too.
        """
