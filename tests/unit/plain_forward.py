"""Reference for rows: a plain forward pass of transformers over one prompt with one completion."""

from __future__ import annotations

import torch
from torch import nn

from geovlm_ray.model.families import base_model
from geovlm_ray.model.prompts import EncodedPrompt
from geovlm_ray.model.rows import Completion


def plain_logits(model: nn.Module, prompt: EncodedPrompt, completion: Completion) -> torch.Tensor:
    """Logits that predict every token of the completion, [T, vocabulary]."""
    ids = torch.cat([prompt.input_ids, torch.tensor(completion.token_ids)])[None]
    images = [i for i in (prompt.images, completion.images) if i is not None and len(i.grid_thw)]
    inputs = (
        {
            "mm_token_type_ids": (ids == base_model(model).config.image_token_id).long(),
            "pixel_values": torch.cat([i.pixel_values for i in images]),
            "image_grid_thw": torch.cat([i.grid_thw for i in images]),
        }
        if images
        else {}
    )
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **inputs).logits[0]
    return logits[len(prompt.input_ids) - 1 : -1].float()


def plain_logprobs(
    model: nn.Module, prompt: EncodedPrompt, completion: Completion, banned: torch.Tensor | None = None
) -> torch.Tensor:
    """Log-probs of every token of the completion, [T]."""
    logits = plain_logits(model, prompt, completion)
    if banned is not None:
        logits = logits.index_fill(-1, banned, float("-inf"))
    return logits.log_softmax(-1).gather(-1, torch.tensor(completion.token_ids)[:, None])[:, 0]
