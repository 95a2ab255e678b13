"""Log-probs of completion tokens, with logits computed in chunks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from geovlm_ray.model.families import base_model, family_of
from geovlm_ray.model.rows import GroupRow
from geovlm_ray.model.shared_prefix import IMPLEMENTATION, SharedPrefix

MAX_LOGITS = 2**25
"""Maximum number of logits in memory at a time."""
TokenScore = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Scores tokens from their logits [n, vocabulary] and ids [n]; the first dimension of the result is n."""


def token_logprobs(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-prob of each target, [n]."""
    return logits.gather(-1, targets[:, None]).squeeze(-1) - logits.logsumexp(-1)


def fused_logprobs(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """`token_logprobs` up to rounding, with half the passes over the logits."""
    return -nn.functional.cross_entropy(logits, targets, reduction="none")


def logprobs_and_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-prob of each target, and the entropy of its distribution in nats, [n, 2]."""
    logprobs = logits.log_softmax(-1)
    # Banned tokens have log-prob -inf and contribute 0.
    entropy = -(logprobs.exp() * logprobs.masked_fill(logprobs == float("-inf"), 0.0)).sum(-1)
    return torch.stack([logprobs.gather(-1, targets[:, None]).squeeze(-1), entropy], dim=1)


def logprobs_and_hits(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-prob of each target, and 1 if it has the largest logit, else 0, [n, 2]."""
    return torch.stack([fused_logprobs(logits, targets), (logits.argmax(-1) == targets).float()], dim=1)


class RowLogprobs(nn.Module):
    """Log-probs of the completion tokens of rows; a module because FSDP2 requires one.

    The token ids ``banned`` [b] get probability 0, as in the engine. With ``fp32_head_of``, the output layer multiplies
    weights and hidden states of this dtype in fp32. The language model of ``model`` is switched to shared-prefix
    attention and accepts only rows from then on.
    """

    def __init__(
        self,
        model: nn.Module,
        banned: torch.Tensor,
        temperature: float = 1.0,
        fp32_head_of: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        family_of(model).use_attention(base_model(model), IMPLEMENTATION)
        self.model = model
        self.banned = banned
        self.temperature = temperature
        self.fp32_head_of = fp32_head_of

    def forward(self, row: GroupRow, score: TokenScore = token_logprobs) -> torch.Tensor:
        """Scores of the N tokens that the policy wrote, fp32; by default their log-probs, [N].

        Beyond `MAX_LOGITS`, logits are computed in chunks and recomputed in the backward pass.
        """
        base = base_model(self.model)
        device = base.device
        images = row.images
        hidden = family_of(base).hidden_states(
            base,
            row.input_ids,
            images.pixel_values,
            images.grid_thw,
            row.positions(base),
            SharedPrefix(row.groups, device),
        )
        # Not by indexing, whose gradient sums repeated positions in an order that varies on the CPU.
        states, targets = hidden.index_select(0, row.logit_positions.to(device)), row.targets.to(device)
        banned = self.banned.to(device)

        def chunk_scores(states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            logits = self._logits(base.lm_head, states)
            # With a large vocabulary, every pass over the logits counts.
            if self.temperature != 1:
                logits = logits / self.temperature
            if len(banned):
                logits = logits.index_fill(-1, banned, float("-inf"))
            return score(logits, targets)

        size = max(1, MAX_LOGITS // base.lm_head.out_features)
        if len(targets) <= size:
            return chunk_scores(states, targets)
        chunks = zip(states.split(size), targets.split(size), strict=True)
        return torch.cat([checkpoint(chunk_scores, *chunk, use_reentrant=False) for chunk in chunks])

    def _logits(self, head: nn.Linear, states: torch.Tensor) -> torch.Tensor:
        """Output of the last layer in fp32, [n, vocabulary]."""
        if self.fp32_head_of is None:
            return head(states).float()
        with torch.autocast(states.device.type, enabled=False):
            weight = head.weight.to(self.fp32_head_of).float()
            return nn.functional.linear(states.to(self.fp32_head_of).float(), weight)
