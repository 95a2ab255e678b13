"""The completion tokens of a micro-batch in one row, and what an objective makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

KlAggregation = Literal["token", "sample"]


@dataclass(frozen=True)
class BatchSize:
    """Size of the whole optimizer batch, by which sums are divided, so that cutting it up changes nothing.

    ``max_completion_tokens`` is the largest number of tokens that a completion may have.
    """

    samples: int
    tokens: int
    max_completion_tokens: int


@dataclass(frozen=True)
class LossInputs:
    """N completion tokens of S samples.

    ``logprobs`` (with gradient) and ``old_logprobs`` are [N] fp32, ``sample`` [N] int64 says whose a token is,
    ``advantages`` is [S] fp32. ``weights`` [N] corrects for the difference between the engine that drew the tokens
    and the policy behind ``old_logprobs``; None where they are the same.
    """

    logprobs: torch.Tensor
    old_logprobs: torch.Tensor
    sample: torch.Tensor
    advantages: torch.Tensor
    weights: torch.Tensor | None = None

    @property
    def lengths(self) -> torch.Tensor:
        """Tokens of each sample, [S] fp32."""
        return self.per_sample(torch.ones_like(self.logprobs))

    @property
    def log_ratio(self) -> torch.Tensor:
        """Log of policy over old policy, [N]."""
        return self.logprobs - self.old_logprobs

    def per_sample(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over each sample's tokens, [N] to [S]."""
        return torch.zeros_like(self.advantages).index_add(0, self.sample, values)

    def weighted(self, values: torch.Tensor) -> torch.Tensor:
        """Values of tokens, each times the correction of its token."""
        return values if self.weights is None else values * self.weights


@dataclass(frozen=True)
class Clip:
    """Bounds of the ratio: from below at ``1 - low``, from above at ``1 + high``."""

    low: float
    high: float

    def __call__(self, ratio: torch.Tensor) -> torch.Tensor:
        """The ratio within its bounds."""
        return ratio.clamp(1 - self.low, 1 + self.high)


@dataclass(frozen=True)
class PolicyLoss:
    """``loss`` is a micro-batch's part of the whole batch's; ``clipped`` [N] marks tokens without gradient."""

    loss: torch.Tensor
    clipped: torch.Tensor


@dataclass(frozen=True)
class Objective:
    """What the learner maximises: advantages out of a group's rewards [G], and the loss of a micro-batch.

    ``kl_aggregation`` selects whether the KL penalty is averaged over all tokens of the batch (``token``) or first over
    the tokens of each sample (``sample``).
    """

    advantages: Callable[[np.ndarray], np.ndarray]
    loss: Callable[[LossInputs, Clip, BatchSize], PolicyLoss]
    kl_aggregation: KlAggregation = "sample"


def surrogate(tokens: LossInputs, ratio: torch.Tensor, clip: Clip) -> tuple[torch.Tensor, torch.Tensor]:
    """PPO's clipped surrogate of each token, [N], and which tokens the clip deprives of their gradient."""
    advantage = tokens.advantages[tokens.sample]
    free, bound = ratio * advantage, clip(ratio) * advantage
    return torch.minimum(free, bound), free > bound


def kl_penalty(
    tokens: LossInputs, reference: torch.Tensor, size: BatchSize, kl_aggregation: KlAggregation
) -> torch.Tensor:
    """A micro-batch's contribution to KL(policy || reference), averaged as ``kl_aggregation`` says.

    The unbiased non-negative estimate exp(r - p) - (r - p) - 1 (DeepSeekMath, arXiv 2402.03300, equation 4).
    """
    difference = reference - tokens.logprobs
    values = difference.exp() - difference - 1
    if kl_aggregation == "token":
        return values.sum() / size.tokens
    return (tokens.per_sample(values) / tokens.lengths).sum() / size.samples
