"""The completion tokens of a micro-batch in one row, and what an objective makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class BatchSize:
    """Size of the whole optimizer batch, by which sums are divided, so that cutting it up changes nothing.

    ``longest`` is the largest number of tokens that a completion may have.
    """

    samples: int
    tokens: int
    longest: int


@dataclass(frozen=True)
class Tokens:
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

    ``per_token`` says that the KL to the reference is averaged over all tokens, else over those of each sample.
    """

    advantages: Callable[[np.ndarray], np.ndarray]
    loss: Callable[[Tokens, Clip, BatchSize], PolicyLoss]
    per_token: bool = False


def surrogate(tokens: Tokens, ratio: torch.Tensor, clip: Clip) -> tuple[torch.Tensor, torch.Tensor]:
    """PPO's clipped surrogate of each token, [N], and which tokens the clip deprives of their gradient."""
    advantage = tokens.advantages[tokens.sample]
    free, bound = ratio * advantage, clip(ratio) * advantage
    return torch.minimum(free, bound), free > bound


def kl_penalty(tokens: Tokens, reference: torch.Tensor, size: BatchSize, per_token: bool) -> torch.Tensor:
    """A micro-batch's part of KL(policy || reference), averaged over all tokens or over each sample's.

    The unbiased non-negative estimate exp(r - p) - (r - p) - 1 (DeepSeekMath, arXiv 2402.03300, equation 4).
    """
    difference = reference - tokens.logprobs
    values = difference.exp() - difference - 1
    if per_token:
        return values.sum() / size.tokens
    return (tokens.per_sample(values) / tokens.lengths).sum() / size.samples
