"""The clipped objective of GRPO and its KL term."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class PolicyLoss:
    """``loss`` is the term to minimise, summed over samples; the rest are sums over tokens, for the metrics."""

    loss: torch.Tensor
    clipped_tokens: torch.Tensor
    kl_to_sampler: torch.Tensor


def grpo_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> PolicyLoss:
    """Negative clipped surrogate: mean over each sample's tokens, summed over samples.

    ``logprobs``, ``old_logprobs`` and ``mask`` are [n, T], ``advantages`` [n]. The caller divides by the
    number of samples of the whole batch, so that the result does not depend on how it was cut into
    micro-batches. Source: DeepSeekMath (arXiv 2402.03300), equation 3, without the KL.
    """
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0.0)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    weight = advantages[:, None]
    surrogate = torch.minimum(ratio * weight, clipped * weight)
    cut = (ratio * weight > clipped * weight) & mask
    with torch.no_grad():
        kl = (ratio - 1 - log_ratio).sum()
    return PolicyLoss(-per_sample_mean(surrogate, mask).sum(), cut.sum(), kl)


def kl_penalty(logprobs: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """KL(policy || reference), mean over each sample's tokens, summed over samples.

    The unbiased non-negative estimate exp(r - p) - (r - p) - 1 (DeepSeekMath, equation 4).
    """
    difference = torch.where(mask, reference - logprobs, 0.0)
    return per_sample_mean(difference.exp() - difference - 1, mask).sum()


def per_sample_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the real tokens of each row, [n]."""
    return (values * mask).sum(1) / mask.sum(1).clamp(min=1)
