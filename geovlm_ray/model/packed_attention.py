"""Attention over sequences of different lengths that are packed one after another, without padding and masks.

On a GPU in half precision, torch's flash attention computes all sequences in one call.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

VISION_ATTENTION = "packed_flash"
"""Attention of the vision tower; transformers passes the lengths to implementations with "flash" in their name."""
# torch 2.11 takes grouped heads without being told.
_GROUPED_HEADS = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


@dataclass(frozen=True)
class Lengths:
    """Lengths of packed sequences: ``cumulative`` [n + 1] int32 on the device, and the ``longest``."""

    cumulative: torch.Tensor
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Lengths:
        """From the length of each sequence."""
        cumulative = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return cls(cumulative.to(device), max(lengths))


def runs_flash(values: torch.Tensor) -> bool:
    """Whether torch's flash attention for packed sequences runs for values of this type on their device."""
    return values.is_cuda and values.dtype in (torch.bfloat16, torch.float16)


def flash_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    queries: Lengths,
    keys: Lengths,
    scale: float | None,
    *,
    causal: bool,
) -> torch.Tensor:
    """Attention of each sequence of queries [Q, heads, d] to its keys and values [K, key heads, d]; [Q, heads, d].

    Causal: the last query of a sequence attends to all its keys.
    """
    output: torch.Tensor = varlen_attn(
        query.to(value.dtype),
        key.to(value.dtype),
        value,
        queries.cumulative,
        keys.cumulative,
        queries.longest,
        keys.longest,
        scale=scale,
        window_size=(-1, 0) if causal else (-1, -1),
        **_GROUPED_HEADS,
    )
    return output


def vision_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    **settings: object,
) -> tuple[torch.Tensor, None]:
    """Attention within each image or window; query, key and value are [1, heads, L, d], the result [1, L, heads, d]."""
    if not runs_flash(value):
        lengths = cu_seq_lens_q.diff().tolist()
        parts = zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True)
        outputs = [scaled_dot_product_attention(q, k, v, scale=scaling) for q, k, v in parts]
        return torch.cat(outputs, dim=2).transpose(1, 2), None
    lengths = Lengths(cu_seq_lens_q.int(), max_length_q)
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    return flash_attention(q, k, v, lengths, lengths, scaling, causal=False)[None], None


AttentionInterface.register(VISION_ATTENTION, vision_attention)
