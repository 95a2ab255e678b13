"""GSPO: sequence-level ratio and clipping (Zheng et al., arXiv 2507.18071, equations 5 and 7)."""

from __future__ import annotations

from geovlm_ray.learner.advantages import normalised
from geovlm_ray.learner.loss_inputs import BatchSize, Clip, LossInputs, Objective, PolicyLoss


def loss(tokens: LossInputs, clip: Clip, size: BatchSize) -> PolicyLoss:
    """Mean over samples of the clipped surrogate of the length-normalised sequence likelihood ratio.

    A sample's importance weight is the mean of its tokens' weights.
    """
    ratio = (tokens.per_sample(tokens.log_ratio) / tokens.lengths).exp()
    unclipped, clipped = ratio * tokens.advantages, clip(ratio) * tokens.advantages
    value = unclipped.minimum(clipped)
    if tokens.weights is not None:
        value = value * tokens.per_sample(tokens.weights) / tokens.lengths
    return PolicyLoss(-value.sum() / size.samples, (unclipped > clipped)[tokens.sample])


GSPO = Objective(normalised, loss)
