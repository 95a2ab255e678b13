"""Inputs and outputs of RL objectives, and the loss terms that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    # The configuration checks names of objectives without loading torch.
    import torch

KlAggregation = Literal["token", "sample"]


@dataclass(frozen=True)
class BatchSize:
    """Size of the whole optimizer batch; sums are divided by it, so the split into micro-batches changes nothing.

    ``max_completion_tokens`` is the maximum completion length in tokens.
    """

    samples: int
    tokens: int
    max_completion_tokens: int


@dataclass(frozen=True)
class LossInputs:
    """N completion tokens of S samples.

    ``logprobs`` (with gradient) and ``old_logprobs`` are [N] fp32, ``sample`` [N] int64 is the sample index of each
    token, ``advantages`` is [S] fp32. ``weights`` [N] are importance weights from the engine that sampled the tokens to
    the policy of ``old_logprobs``; None if they are the same.
    """

    logprobs: torch.Tensor
    old_logprobs: torch.Tensor
    sample: torch.Tensor
    advantages: torch.Tensor
    weights: torch.Tensor | None = None

    @property
    def lengths(self) -> torch.Tensor:
        """Token count of each sample, [S] fp32."""
        return self.per_sample(self.logprobs.new_ones(self.logprobs.shape))

    @property
    def log_ratio(self) -> torch.Tensor:
        """Log of the probability ratio policy / old policy, [N]."""
        return self.logprobs - self.old_logprobs

    def per_sample(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over each sample's tokens, [N] to [S]."""
        return self.advantages.new_zeros(self.advantages.shape).index_add(0, self.sample, values)

    def weighted(self, values: torch.Tensor) -> torch.Tensor:
        """Per-token values times their importance weights, [N]."""
        return values if self.weights is None else values * self.weights


@dataclass(frozen=True)
class Clip:
    """Clip bounds of the ratio: ``1 - low`` and ``1 + high``."""

    low: float
    high: float

    def __call__(self, ratio: torch.Tensor) -> torch.Tensor:
        """Clamp the ratio to its bounds."""
        return ratio.clamp(1 - self.low, 1 + self.high)


@dataclass(frozen=True)
class PolicyLoss:
    """``loss`` is a micro-batch's share of the batch loss; ``clipped`` [N] marks tokens with zero gradient."""

    loss: torch.Tensor
    clipped: torch.Tensor


@dataclass(frozen=True)
class Objective:
    """An RL objective: advantages from a group's rewards [G], and the policy loss of a micro-batch.

    ``kl_aggregation`` selects whether the KL penalty is averaged over all tokens of the batch (``token``) or first over
    the tokens of each sample (``sample``).
    """

    advantages: Callable[[np.ndarray], np.ndarray]
    loss: Callable[[LossInputs, Clip, BatchSize], PolicyLoss]
    kl_aggregation: KlAggregation = "sample"


def surrogate(tokens: LossInputs, ratio: torch.Tensor, clip: Clip) -> tuple[torch.Tensor, torch.Tensor]:
    """PPO's clipped surrogate per token, [N], and a mask of the tokens that clipping leaves without gradient, [N]."""
    advantage = tokens.advantages[tokens.sample]
    unclipped, clipped = ratio * advantage, clip(ratio) * advantage
    return unclipped.minimum(clipped), unclipped > clipped


def kl_penalty(
    tokens: LossInputs, reference: torch.Tensor, size: BatchSize, kl_aggregation: KlAggregation
) -> torch.Tensor:
    """A micro-batch's contribution to KL(policy || reference), averaged according to ``kl_aggregation``.

    The unbiased, non-negative estimator exp(r - p) - (r - p) - 1 (DeepSeekMath, arXiv 2402.03300, equation 4).
    """
    difference = reference - tokens.logprobs
    values = difference.exp() - difference - 1
    if kl_aggregation == "token":
        return values.sum() / size.tokens
    return (tokens.per_sample(values) / tokens.lengths).sum() / size.samples
