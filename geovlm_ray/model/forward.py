"""Sequence packing for supervised fine-tuning, and forward passes over packed rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from geovlm_ray.model.prompts import EncodedPrompt, pad_right


@dataclass(frozen=True)
class Pack:
    """Prompts with their responses, packed into one row of L tokens.

    ``input_ids``, ``mm_token_type_ids`` and ``response`` (True for response tokens) are [L]; ``lengths`` [n] are the
    sequence lengths. ``pixel_values`` and ``image_grid_thw`` concatenate the images of all sequences, in the format of
    `EncodedPrompt`.
    """

    input_ids: torch.Tensor
    mm_token_type_ids: torch.Tensor
    response: torch.Tensor
    lengths: torch.Tensor
    pixel_values: torch.Tensor
    image_grid_thw: torch.Tensor

    @classmethod
    def of(cls, sequences: Sequence[tuple[EncodedPrompt, Sequence[int]]]) -> Pack:
        """Build from pairs of a prompt and its response token ids.

        Raises:
            ValueError: no sequences, or an empty response.
        """
        if not sequences or any(not len(ids) for _, ids in sequences):
            raise ValueError("expected at least one sequence, each with at least one response token")
        prompts = [prompt for prompt, _ in sequences]
        ids, types, response = [], [], []
        for prompt, completion in sequences:
            ids += [prompt.input_ids, torch.tensor(completion)]
            types += [prompt.mm_token_type_ids, torch.zeros(len(completion), dtype=torch.long)]
            response += [torch.zeros_like(prompt.input_ids).bool(), torch.ones(len(completion), dtype=torch.bool)]
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
        """Token ids of the R response tokens, in order."""
        return self.input_ids[self.response]


def packed_logits(model: nn.Module, pack: Pack) -> torch.Tensor:
    """Logits that predict the R response tokens of a pack, [R, vocabulary].

    Attention and positions are separate for each sequence, so the logits equal those of unpacked sequences.
    """
    base = base_model(model)
    device = base.device
    hidden = run_row(
        base,
        pack.input_ids,
        pack.pixel_values,
        pack.image_grid_thw,
        # Without a mask, the model infers sequence boundaries from the text positions in the first row.
        position_ids=_packed_positions(base.model, pack)[:, None].to(device),
    )
    predicting = pack.response.nonzero().squeeze(1) - 1
    return base.lm_head(hidden[predicting.to(device)])


def run_row(
    base: nn.Module, input_ids: torch.Tensor, pixel_values: torch.Tensor, image_grid_thw: torch.Tensor, **inputs: Any
) -> torch.Tensor:
    """Last hidden states [L, width] of a row of token ids [L]; images in the format of `EncodedPrompt`, possibly none.

    A row without images still runs the vision tower, on a blank image whose features are multiplied by 0: the ranks of
    a sharded policy synchronize at every layer, in the backward pass too.
    """
    device = base.device
    ids = input_ids[None].to(device)
    if len(image_grid_thw):
        inputs |= {"input_ids": ids, "pixel_values": pixel_values.to(device)}
        inputs |= {"image_grid_thw": image_grid_thw.to(device)}
    else:
        features = base.model.get_image_features(*_blank_image(base.config.vision_config, device)).pooler_output
        inputs |= {"inputs_embeds": base.get_input_embeddings()(ids) + 0 * torch.cat(list(features)).sum()}
    return base.model(**inputs, use_cache=False).last_hidden_state[0]


def _blank_image(vision: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches and grid of the smallest possible image, all zero."""
    side = vision.spatial_merge_size
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return torch.zeros(side**2, values, device=device), torch.tensor([[1, side, side]], device=device)


def base_model(model: nn.Module) -> nn.Module:
    """The Qwen2.5-VL model without the PEFT wrapper; its layers keep the adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _packed_positions(inner: nn.Module, pack: Pack) -> torch.Tensor:
    """Positions [4, L] of a pack: text index and three M-RoPE axes, starting at 0 in each sequence."""
    lengths = pack.lengths.tolist()
    mask = pad_right([torch.ones(n, dtype=torch.bool) for n in lengths])
    rows = [pad_right(tensor.split(lengths)) for tensor in (pack.input_ids, pack.mm_token_type_ids)]
    axes, _ = inner.get_rope_index(*rows, image_grid_thw=pack.image_grid_thw, attention_mask=mask.long())
    text = torch.cat([torch.arange(n) for n in lengths])
    return torch.cat([text[None], axes[:, mask]])
