"""GRPO: DeepSeekMath (arXiv 2402.03300), equation 3 without the KL term."""

from __future__ import annotations

from geovlm_ray.learner.advantages import normalised
from geovlm_ray.learner.loss_inputs import BatchSize, Clip, LossInputs, Objective, PolicyLoss, surrogate


def loss(tokens: LossInputs, clip: Clip, size: BatchSize) -> PolicyLoss:
    """Mean of the clipped surrogate over each sample's tokens, then over samples."""
    values, clipped = surrogate(tokens, tokens.log_ratio.exp(), clip)
    mean = tokens.per_sample(tokens.weighted(values)) / tokens.lengths
    return PolicyLoss(-mean.sum() / size.samples, clipped)


GRPO = Objective(normalised, loss)
