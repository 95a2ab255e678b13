"""Log-probabilities of completions, the images and the prompt of a group encoded once for all its samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import DynamicCache

from geovlm_ray.policy.prompts import EncodedPrompt, pad_right


@dataclass(frozen=True)
class CompletionBatch:
    """Completions of some prompts, padded on the right.

    ``token_ids`` is [n, T] int64, ``mask`` [n, T] bool (True on real tokens), ``owner`` [n] int64: the index
    of each completion's prompt in ``prompts``.
    """

    prompts: Sequence[EncodedPrompt]
    token_ids: torch.Tensor
    mask: torch.Tensor
    owner: torch.Tensor

    @classmethod
    def of(cls, prompts: Sequence[EncodedPrompt], completions: Sequence[Sequence[Sequence[int]]]) -> CompletionBatch:
        """Build from one list of completions (token ids) per prompt.

        Raises:
            ValueError: the two lengths differ, or a completion is empty.
        """
        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts but {len(completions)} lists of completions")
        rows = [torch.tensor(ids) for group in completions for ids in group]
        if any(len(row) == 0 for row in rows):
            raise ValueError("a completion has no token")
        owner = torch.tensor([i for i, group in enumerate(completions) for _ in group])
        mask = pad_right([torch.ones(len(row), dtype=torch.bool) for row in rows])
        return cls(prompts, pad_right(rows), mask, owner)


def completion_logprobs(
    model: nn.Module, batch: CompletionBatch, banned: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Log-probability of every completion token under the model, [n, T] fp32; padding holds 0.

    The prompt is run once with a cache that keeps its gradient; its keys and values are then expanded to the
    completions that continue it, so that gradients equal those of n full sequences. Positions are
    Qwen2.5-VL's three-axis ones. ``banned`` (ids, [b]) have probability 0, as in the engine.
    """
    base = base_model(model)
    device = base.device
    token_ids, mask, owner = batch.token_ids.to(device), batch.mask.to(device), batch.owner.to(device)
    last_hidden, cache, prompt_mask, next_position = _run_prompts(base.model, batch.prompts, device)
    cache.batch_select_indices(owner)
    hidden = last_hidden[owner][:, None]
    steps = token_ids.shape[1] - 1
    if steps:
        positions = next_position[owner][:, None] + torch.arange(steps, device=device)
        continued = base.model(
            input_ids=token_ids[:, :-1],
            attention_mask=torch.cat([prompt_mask[owner], mask[:, :-1]], dim=1).long(),
            position_ids=positions.expand(3, -1, -1),
            past_key_values=cache,
            use_cache=True,
        )
        hidden = torch.cat([hidden, continued.last_hidden_state], dim=1)
    logprobs = _token_logprobs(base.lm_head(hidden), token_ids, banned.to(device), temperature)
    return torch.where(mask, logprobs, 0.0)


def sequence_logits(model: nn.Module, batch: CompletionBatch) -> torch.Tensor:
    """Logits [n, T, vocabulary] of one completion per prompt run as whole sequences, for supervised training."""
    base = base_model(model)
    device = base.device
    joined = [
        torch.cat([p.input_ids, row[m]]) for p, row, m in zip(batch.prompts, batch.token_ids, batch.mask, strict=True)
    ]
    types = [
        torch.nn.functional.pad(p.mm_token_type_ids, (0, len(j) - len(p.input_ids)))
        for p, j in zip(batch.prompts, joined, strict=True)
    ]
    attention = pad_right([torch.ones(len(j), dtype=torch.long) for j in joined])
    output = base.model(
        input_ids=pad_right(joined).to(device),
        attention_mask=attention.to(device),
        mm_token_type_ids=pad_right(types).to(device),
        pixel_values=torch.cat([p.pixel_values for p in batch.prompts]).to(device),
        image_grid_thw=torch.cat([p.image_grid_thw for p in batch.prompts]).to(device),
        use_cache=False,
    ).last_hidden_state
    starts = torch.tensor([len(p.input_ids) - 1 for p in batch.prompts], device=device)
    index = starts[:, None] + torch.arange(batch.token_ids.shape[1], device=device)
    index = index.clamp(max=output.shape[1] - 1)
    return base.lm_head(output.gather(1, index[..., None].expand(-1, -1, output.shape[-1])))


def base_model(model: nn.Module) -> nn.Module:
    """The Qwen2.5-VL inside an adapter wrapper, whose layers carry the adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _run_prompts(
    inner: nn.Module, prompts: Sequence[EncodedPrompt], device: torch.device
) -> tuple[torch.Tensor, DynamicCache, torch.Tensor, torch.Tensor]:
    """Run P prompts of at most L tokens.

    Returns the last real token's hidden state [P, H], the cache, the mask [P, L] and the position of the
    token that follows each prompt [P].
    """
    input_ids = pad_right([p.input_ids for p in prompts]).to(device)
    mask = pad_right([torch.ones(len(p.input_ids), dtype=torch.bool) for p in prompts]).to(device)
    types = pad_right([p.mm_token_type_ids for p in prompts]).to(device)
    grids = torch.cat([p.image_grid_thw for p in prompts]).to(device)
    positions, _ = inner.get_rope_index(input_ids, types, image_grid_thw=grids, attention_mask=mask.long())
    cache = DynamicCache()
    output = inner(
        input_ids=input_ids,
        attention_mask=mask.long(),
        position_ids=positions,
        pixel_values=torch.cat([p.pixel_values for p in prompts]).to(device),
        image_grid_thw=grids,
        past_key_values=cache,
        use_cache=True,
    )
    last = mask.sum(1) - 1
    last_hidden = output.last_hidden_state[torch.arange(len(prompts), device=device), last]
    next_position = positions.amax(dim=(0, 2)) + 1
    return last_hidden, cache, mask, next_position


def _token_logprobs(
    logits: torch.Tensor, token_ids: torch.Tensor, banned: torch.Tensor, temperature: float
) -> torch.Tensor:
    logits = logits.float() / temperature
    logits = logits.index_fill(-1, banned, float("-inf"))
    chosen = logits.gather(-1, token_ids[..., None]).squeeze(-1)
    return chosen - logits.logsumexp(-1)
