"""Shared-prefix attention: each completion of a row attends to its prompt and to itself.

Values and gradients equal those of whole sequences, although a prompt and its images are in the row only once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from geovlm_ray.model.rows import GroupSpan

IMPLEMENTATION = "shared_prefix"


class SharedPrefix:
    """Attention masks of a row, one per group; passed to the model in place of a mask tensor.

    The mask of a group with one completion is None: the group is an ordinary causal sequence.
    """

    def __init__(self, groups: Sequence[GroupSpan], device: torch.device) -> None:
        self.groups = groups
        self.masks = [_completion_mask(group).to(device) if len(group.completions) > 1 else None for group in groups]


def _completion_mask(group: GroupSpan) -> torch.Tensor:
    """[1, 1, completion tokens, group tokens] bool: the whole prompt, and causally the token's own completion."""
    owner = torch.repeat_interleave(torch.arange(len(group.completions)), torch.tensor(group.completions))
    own = (owner[:, None] == owner[None, :]).tril()
    return torch.cat([torch.ones(len(owner), group.prompt, dtype=torch.bool), own], dim=1)[None, None]


def shared_prefix_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: SharedPrefix,
    **settings: object,
) -> tuple[torch.Tensor, None]:
    """Attention within each group of a row; query, key and value are [1, heads, L, d], the result [1, L, heads, d]."""

    def attend(queries: slice, keys: slice, mask: torch.Tensor | None) -> torch.Tensor:
        parts = (query[:, :, queries], key[:, :, keys], value[:, :, keys])
        return sdpa_attention_forward(module, *parts, mask, **{**settings, "is_causal": mask is None})[0]

    rows = []
    for group, mask in zip(attention_mask.groups, attention_mask.masks, strict=True):
        everything = slice(group.start, group.end)
        if mask is None:
            rows.append(attend(everything, everything, None))
            continue
        prompt = slice(group.start, group.prompt_end)
        rows.append(attend(prompt, prompt, None))
        if group.end > group.prompt_end:
            rows.append(attend(slice(group.prompt_end, group.end), everything, mask))
    return torch.cat(rows, dim=1), None


AttentionInterface.register(IMPLEMENTATION, shared_prefix_attention)
