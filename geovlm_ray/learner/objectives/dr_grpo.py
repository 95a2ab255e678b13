"""Dr. GRPO: GRPO without its length and difficulty biases (Liu et al., arXiv 2503.20783, section 3.2)."""

from __future__ import annotations

from geovlm_ray.learner.advantages import centred
from geovlm_ray.learner.loss_inputs import BatchSize, Clip, LossInputs, Objective, PolicyLoss, surrogate


def loss(tokens: LossInputs, clip: Clip, size: BatchSize) -> PolicyLoss:
    """Sum over each sample's tokens divided by ``max_completion_tokens``, then the mean over samples."""
    values, clipped = surrogate(tokens, tokens.log_ratio.exp(), clip)
    return PolicyLoss(-tokens.weighted(values).sum() / (size.max_completion_tokens * size.samples), clipped)


DR_GRPO = Objective(centred, loss)
