"""Forward passes: completions that share the prompt of their group, and sequences packed into one row."""

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


@dataclass(frozen=True)
class Pack:
    """Prompts with their responses, one after the other in one row of L tokens.

    ``input_ids``, ``mm_token_type_ids`` and ``response`` (True on the tokens of responses) are [L]; ``lengths`` [n]
    are those of the sequences. The images of all sequences follow one another in ``pixel_values`` and
    ``image_grid_thw``, which are as in `EncodedPrompt`.
    """

    input_ids: torch.Tensor
    mm_token_type_ids: torch.Tensor
    response: torch.Tensor
    lengths: torch.Tensor
    pixel_values: torch.Tensor
    image_grid_thw: torch.Tensor

    @classmethod
    def of(cls, sequences: Sequence[tuple[EncodedPrompt, Sequence[int]]]) -> Pack:
        """Build from prompts, each with the token ids of its response.

        Raises:
            ValueError: there is no sequence, or a response is empty.
        """
        if not sequences or any(not len(ids) for _, ids in sequences):
            raise ValueError("a pack takes at least one sequence, each with at least one token of a response")
        prompts = [prompt for prompt, _ in sequences]
        ids, types, response = [], [], []
        for prompt, completion in sequences:
            asked = torch.zeros_like(prompt.input_ids)
            answered = torch.zeros(len(completion), dtype=torch.long)
            ids += [prompt.input_ids, torch.tensor(completion)]
            types += [prompt.mm_token_type_ids, answered]
            response += [asked.bool(), ~answered.bool()]
        return cls(
            input_ids=torch.cat(ids),
            mm_token_type_ids=torch.cat(types),
            response=torch.cat(response),
            lengths=torch.tensor([len(prompt.input_ids) + len(completion) for prompt, completion in sequences]),
            pixel_values=torch.cat([prompt.pixel_values for prompt in prompts]),
            image_grid_thw=torch.cat([prompt.image_grid_thw for prompt in prompts]),
        )

    @property
    def targets(self) -> torch.Tensor:
        """Ids of the R response tokens in order."""
        return self.input_ids[self.response]


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


def packed_logits(model: nn.Module, pack: Pack) -> torch.Tensor:
    """Logits [R, vocabulary] from which each of a pack's R response tokens is predicted.

    Attention stays within each sequence and positions begin anew with each, so that the logits equal those of the
    sequences run one by one.
    """
    base = base_model(model)
    device = base.device
    output = base.model(
        input_ids=pack.input_ids[None].to(device),
        # Without a mask, the text positions in the first row tell the model where a sequence begins.
        position_ids=_packed_positions(base.model, pack)[:, None].to(device),
        pixel_values=pack.pixel_values.to(device),
        image_grid_thw=pack.image_grid_thw.to(device),
        use_cache=False,
    )
    predicting = pack.response.nonzero().squeeze(1) - 1
    return base.lm_head(output.last_hidden_state[0, predicting.to(device)])


def base_model(model: nn.Module) -> nn.Module:
    """The Qwen2.5-VL inside an adapter wrapper, whose layers carry the adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _packed_positions(inner: nn.Module, pack: Pack) -> torch.Tensor:
    """Positions [4, L] of a pack: within the text, and Qwen2.5-VL's three axes; each sequence counts from 0."""
    lengths = pack.lengths.tolist()
    mask = pad_right([torch.ones(n, dtype=torch.bool) for n in lengths])
    rows = [pad_right(tensor.split(lengths)) for tensor in (pack.input_ids, pack.mm_token_type_ids)]
    axes, _ = inner.get_rope_index(*rows, image_grid_thw=pack.image_grid_thw, attention_mask=mask.long())
    text = torch.cat([torch.arange(n) for n in lengths])
    return torch.cat([text[None], axes[:, mask]])


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
