"""Completion log-probs with shared prompt prefixes: each group's images and prompt are encoded once.

A row concatenates groups without padding; a group is its prompt followed by its G completions. Every completion
attends to the prompt and to itself, so values and gradients equal those of G separate sequences.
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
MAX_LOGITS = 2**25
"""Maximum number of logits in memory at a time."""


@dataclass(frozen=True)
class GroupSpan:
    """Position of a group in its row: ``prompt`` tokens from index ``start``, then completions of these lengths."""

    start: int
    prompt: int
    completions: tuple[int, ...]

    @property
    def prompt_end(self) -> int:
        """Index after the prompt."""
        return self.start + self.prompt

    @property
    def end(self) -> int:
        """Index after the last completion."""
        return self.prompt_end + sum(self.completions)


class SharedPrefix:
    """Attention masks of a row, one per group; passed to the model in place of a mask tensor."""

    def __init__(self, groups: Sequence[GroupSpan], device: torch.device) -> None:
        self.groups = groups
        self.masks = [_completion_mask(group).to(device) for group in groups]


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
        prompt = slice(group.start, group.prompt_end)
        rows.append(attend(prompt, prompt, None))
        if group.end > group.prompt_end:
            rows.append(attend(slice(group.prompt_end, group.end), slice(group.start, group.end), mask))
    return torch.cat(rows, dim=1), None


AttentionInterface.register(IMPLEMENTATION, shared_prefix_attention)


@dataclass(frozen=True)
class GroupRow:
    """Groups packed into one row of L tokens, with N completion tokens in total.

    ``input_ids`` [L] omits the last token of every completion, which predicts nothing. For each completion token,
    ``logit_positions`` [N] is the index in the row whose hidden state predicts it, ``targets`` [N] its id and
    ``sample`` [N] the index of its completion. Images are concatenated, in the format of `EncodedPrompt`.
    """

    prompts: Sequence[EncodedPrompt]
    groups: tuple[GroupSpan, ...]
    input_ids: torch.Tensor
    logit_positions: torch.Tensor
    targets: torch.Tensor
    sample: torch.Tensor

    @classmethod
    def of(cls, prompts: Sequence[EncodedPrompt], completions: Sequence[Sequence[Sequence[int]]]) -> GroupRow:
        """Build from one list of completions (token ids) per prompt.

        Raises:
            ValueError: the two lengths differ, or a completion is empty.
        """
        ids, logit_positions, groups = [], [], []
        start = 0
        for prompt, group in zip(prompts, completions, strict=True):
            if not all(map(len, group)):
                raise ValueError("expected at least one token per completion, found an empty completion")
            span = GroupSpan(start, len(prompt.input_ids), tuple(len(completion) - 1 for completion in group))
            ids += [prompt.input_ids, *(torch.tensor(completion[:-1], dtype=torch.long) for completion in group)]
            offset = span.prompt_end
            for length in span.completions:
                # The prompt's last token predicts the first token of every completion.
                logit_positions += [torch.tensor([span.prompt_end - 1]), torch.arange(offset, offset + length)]
                offset += length
            groups.append(span)
            start = span.end
        flat = [completion for group in completions for completion in group]
        return cls(
            prompts=prompts,
            groups=tuple(groups),
            input_ids=torch.cat(ids),
            logit_positions=torch.cat(logit_positions),
            targets=torch.cat([torch.tensor(completion) for completion in flat]),
            sample=torch.repeat_interleave(torch.arange(len(flat)), torch.tensor([len(c) for c in flat])),
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
        """Qwen2.5-VL's M-RoPE positions, [3, L]; every completion continues from the end of its prompt."""
        rows = [pad_right([getattr(p, name) for p in self.prompts]) for name in ("input_ids", "mm_token_type_ids")]
        mask = pad_right([torch.ones_like(p.input_ids) for p in self.prompts])
        axes, _ = inner.get_rope_index(*rows, image_grid_thw=self.image_grid_thw, attention_mask=mask)
        parts = []
        for i, group in enumerate(self.groups):
            prompt = axes[:, i, : group.prompt]
            first = int(prompt.max()) + 1
            parts.append(prompt)
            parts += [(first + torch.arange(length)).expand(3, -1) for length in group.completions]
        return torch.cat(parts, dim=1)


def use_shared_prefix_attention(model: nn.Module) -> None:
    """Switch the language model to shared-prefix attention; from then on it accepts only rows of groups."""
    base_model(model).model.language_model.config._attn_implementation = IMPLEMENTATION


def row_logprobs(model: nn.Module, row: GroupRow, banned: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Log-probs of all completion tokens, [N] fp32; ``model`` must use shared-prefix attention.

    The token ids ``banned`` [b] get probability 0, as in the engine. Beyond `MAX_LOGITS`, logits are computed in chunks
    and recomputed in the backward pass.
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
    states, targets = hidden[row.logit_positions.to(device)], row.targets.to(device)
    size = max(1, MAX_LOGITS // base.lm_head.out_features)
    arguments = (base.lm_head, banned.to(device), temperature)
    if len(targets) <= size:
        return _token_logprobs(states, targets, *arguments)
    parts = zip(states.split(size), targets.split(size), strict=True)
    return torch.cat([checkpoint(_token_logprobs, h, t, *arguments, use_reentrant=False) for h, t in parts])


class RowLogprobs(nn.Module):
    """`row_logprobs` as a module, which FSDP2 requires."""

    def __init__(self, model: nn.Module, banned: torch.Tensor, temperature: float) -> None:
        super().__init__()
        use_shared_prefix_attention(model)
        self.model = model
        self.banned = banned
        self.temperature = temperature

    def forward(self, row: GroupRow) -> torch.Tensor:
        """Log-probs of all completion tokens, [N] fp32."""
        return row_logprobs(self.model, row, self.banned, self.temperature)


def _token_logprobs(
    hidden: torch.Tensor, targets: torch.Tensor, lm_head: nn.Module, banned: torch.Tensor, temperature: float
) -> torch.Tensor:
    logits = lm_head(hidden).float() / temperature
    logits = logits.index_fill(-1, banned, float("-inf"))
    return logits.gather(-1, targets[:, None]).squeeze(-1) - logits.logsumexp(-1)
