"""Per-sequence attention in packed rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from geovlm_ray.model.forward import base_model

NAME = "sdpa_within_sequences"


def attend_within_sequences(model: nn.Module) -> None:
    """Make a model with sdpa attention attend to each sequence of a pack separately.

    The result equals attention under the block-diagonal mask that transformers builds for a packed row, without the
    cost quadratic in the row length. From then on the model accepts only packs.
    """
    base = base_model(model)
    if base.config.text_config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, _within_sequences)
        base.set_attn_implementation({"text_config": NAME})


def _within_sequences(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    position_ids: torch.Tensor,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention; a sequence starts wherever ``position_ids`` [1, L] is 0. Inputs are [1, heads, L, d]."""
    starts = (position_ids[0] == 0).nonzero().squeeze(1).tolist()
    lengths = [end - start for start, end in zip(starts, [*starts[1:], query.shape[2]], strict=True)]
    sequences = zip(*(heads.split(lengths, dim=2) for heads in (query, key, value)), strict=True)
    attended = [sdpa_attention_forward(module, *heads, attention_mask, **settings)[0] for heads in sequences]
    return torch.cat(attended, dim=1), None
