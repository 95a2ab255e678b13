"""Log-probabilities of completions in one row without padding, each group's images and prompt encoded once.

A row holds groups one after the other, each its prompt and then its G completions. Every completion attends to the
prompt and to itself, so that values and gradients are those of G whole sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from geovlm_ray.model.forward import base_model, run_row
from geovlm_ray.model.prompts import EncodedPrompt, pad_right

IMPLEMENTATION = "shared_prefix"
LOGITS_AT_ONCE = 2**25
"""Logits that exist at a time, at most."""


@dataclass(frozen=True)
class GroupSpan:
    """Where a group stands in its row: ``prompt`` tokens from ``start``, then its completions of these lengths."""

    start: int
    prompt: int
    completions: tuple[int, ...]

    @property
    def split(self) -> int:
        """Where the prompt ends."""
        return self.start + self.prompt

    @property
    def end(self) -> int:
        """Where the group ends."""
        return self.split + sum(self.completions)


class SharedPrefix:
    """Which token of a row may attend to which; it takes the place of an attention mask."""

    def __init__(self, groups: Sequence[GroupSpan], device: torch.device) -> None:
        self.groups = groups
        self.masks = [_completion_mask(group).to(device) for group in groups]


def _completion_mask(group: GroupSpan) -> torch.Tensor:
    """[1, 1, completion tokens, tokens of the group] bool: the whole prompt, and one's own completion so far."""
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
    """Attention of a row, group by group; query, key and value are [1, heads, L, d], the result is [1, L, heads, d]."""

    def attend(queries: slice, keys: slice, mask: torch.Tensor | None) -> torch.Tensor:
        parts = (query[:, :, queries], key[:, :, keys], value[:, :, keys])
        return sdpa_attention_forward(module, *parts, mask, **{**settings, "is_causal": mask is None})[0]

    rows = []
    for group, mask in zip(attention_mask.groups, attention_mask.masks, strict=True):
        prompt = slice(group.start, group.split)
        rows.append(attend(prompt, prompt, None))
        if group.end > group.split:
            rows.append(attend(slice(group.split, group.end), slice(group.start, group.end), mask))
    return torch.cat(rows, dim=1), None


AttentionInterface.register(IMPLEMENTATION, shared_prefix_attention)


@dataclass(frozen=True)
class GroupRow:
    """Groups in one row of L tokens, with N completion tokens in all.

    ``input_ids`` and ``mm_token_type_ids`` are [L] (of every completion all tokens but the last, which predicts
    nothing). ``predicting`` [N] is the place in the row from which each completion token is predicted, ``targets`` [N]
    its id, ``sample`` [N] the number of its completion. Images are as in `EncodedPrompt`, one after the other.
    """

    prompts: Sequence[EncodedPrompt]
    groups: tuple[GroupSpan, ...]
    input_ids: torch.Tensor
    predicting: torch.Tensor
    targets: torch.Tensor
    sample: torch.Tensor

    @classmethod
    def of(cls, prompts: Sequence[EncodedPrompt], completions: Sequence[Sequence[Sequence[int]]]) -> GroupRow:
        """Build from one list of completions (token ids) per prompt.

        Raises:
            ValueError: the two lengths differ, or a completion is empty.
        """
        ids, predicting, groups = [], [], []
        at = 0
        for prompt, texts in zip(prompts, completions, strict=True):
            length = len(prompt.input_ids)
            if not all(map(len, texts)):
                raise ValueError("a completion has no token")
            span = GroupSpan(at, length, tuple(len(text) - 1 for text in texts))
            ids += [prompt.input_ids, *(torch.tensor(text[:-1], dtype=torch.long) for text in texts)]
            begin = span.split
            for steps in span.completions:
                # The prompt's last token predicts the first one of every completion.
                predicting += [torch.tensor([span.split - 1]), torch.arange(begin, begin + steps)]
                begin += steps
            groups.append(span)
            at = span.end
        texts = [text for group in completions for text in group]
        return cls(
            prompts=prompts,
            groups=tuple(groups),
            input_ids=torch.cat(ids),
            predicting=torch.cat(predicting),
            targets=torch.cat([torch.tensor(text) for text in texts]),
            sample=torch.repeat_interleave(torch.arange(len(texts)), torch.tensor([len(text) for text in texts])),
        )

    @cached_property
    def pixel_values(self) -> torch.Tensor:
        """Patches of all images."""
        return torch.cat([p.pixel_values for p in self.prompts])

    @cached_property
    def image_grid_thw(self) -> torch.Tensor:
        """Grid of every image."""
        return torch.cat([p.image_grid_thw for p in self.prompts])

    def positions(self, inner: nn.Module) -> torch.Tensor:
        """Qwen2.5-VL's positions on three axes, [3, L]: every completion goes on where its prompt ends."""
        rows = [pad_right([getattr(p, name) for p in self.prompts]) for name in ("input_ids", "mm_token_type_ids")]
        mask = pad_right([torch.ones_like(p.input_ids) for p in self.prompts])
        axes, _ = inner.get_rope_index(*rows, image_grid_thw=self.image_grid_thw, attention_mask=mask)
        parts = []
        for i, group in enumerate(self.groups):
            prompt = axes[:, i, : group.prompt]
            after = int(prompt.max()) + 1
            parts.append(prompt)
            parts += [(after + torch.arange(steps)).expand(3, -1) for steps in group.completions]
        return torch.cat(parts, dim=1)


def share_prefixes(model: nn.Module) -> None:
    """Make the language part of a model read rows of groups, and nothing else from now on."""
    base_model(model).model.language_model.config._attn_implementation = IMPLEMENTATION


def row_logprobs(model: nn.Module, row: GroupRow, banned: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Log-probability of every completion token under a model of `share_prefixes`, [N] fp32.

    ``banned`` (ids, [b]) have probability 0, as in the engine. Logits exist for some tokens at a time, and again in
    the backward pass, never for the whole row.
    """
    base = base_model(model)
    device = base.device
    hidden = run_row(
        base,
        row.input_ids,
        row.pixel_values,
        row.image_grid_thw,
        attention_mask={"full_attention": SharedPrefix(row.groups, device)},
        position_ids=row.positions(base.model)[:, None].to(device),
    )
    chosen, targets = hidden[row.predicting.to(device)], row.targets.to(device)
    size = max(1, LOGITS_AT_ONCE // base.lm_head.out_features)
    arguments = (base.lm_head, banned.to(device), temperature)
    if len(targets) <= size:
        return _token_logprobs(chosen, targets, *arguments)
    parts = zip(chosen.split(size), targets.split(size), strict=True)
    return torch.cat([checkpoint(_token_logprobs, h, t, *arguments, use_reentrant=False) for h, t in parts])


class RowLogprobs(nn.Module):
    """`row_logprobs` of a model as a module, which is what a sharded policy has to be."""

    def __init__(self, model: nn.Module, banned: torch.Tensor, temperature: float) -> None:
        super().__init__()
        share_prefixes(model)
        self.model = model
        self.banned = banned
        self.temperature = temperature

    def forward(self, row: GroupRow) -> torch.Tensor:
        """Log-probability of every completion token, [N] fp32."""
        return row_logprobs(self.model, row, self.banned, self.temperature)


def _token_logprobs(
    hidden: torch.Tensor, targets: torch.Tensor, lm_head: nn.Module, banned: torch.Tensor, temperature: float
) -> torch.Tensor:
    logits = lm_head(hidden).float() / temperature
    logits = logits.index_fill(-1, banned, float("-inf"))
    return logits.gather(-1, targets[:, None]).squeeze(-1) - logits.logsumexp(-1)
