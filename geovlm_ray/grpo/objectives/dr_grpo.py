"""Dr. GRPO: GRPO without its biases of length and of difficulty (Liu et al., arXiv 2503.20783, section 3.2)."""

from __future__ import annotations

from geovlm_ray.grpo.advantages import centred
from geovlm_ray.grpo.tokens import BatchSize, Clip, Objective, PolicyLoss, Tokens, surrogate


def loss(tokens: Tokens, clip: Clip, size: BatchSize) -> PolicyLoss:
    """Sum over each sample's tokens over the largest length, a constant, then the mean over samples."""
    values, clipped = surrogate(tokens, tokens.log_ratio.exp(), clip)
    return PolicyLoss(-tokens.weighted(values).sum() / (size.longest * size.samples), clipped)


DR_GRPO = Objective(centred, loss)
