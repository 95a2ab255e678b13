"""GSPO: ratio and clip of whole sequences (Zheng et al., arXiv 2507.18071, equations 5 and 7)."""

from __future__ import annotations

from geovlm_ray.learner.advantages import normalised
from geovlm_ray.learner.loss_inputs import BatchSize, Clip, LossInputs, Objective, PolicyLoss


def loss(tokens: LossInputs, clip: Clip, size: BatchSize) -> PolicyLoss:
    """Mean over samples of the clipped surrogate of the ratio of sequence likelihoods, normalised by length.

    The correction of a sample is the mean of its tokens'.
    """
    ratio = (tokens.per_sample(tokens.log_ratio) / tokens.lengths).exp()
    free, bound = ratio * tokens.advantages, clip(ratio) * tokens.advantages
    value = free.minimum(bound)
    if tokens.weights is not None:
        value = value * tokens.per_sample(tokens.weights) / tokens.lengths
    return PolicyLoss(-value.sum() / size.samples, (free > bound)[tokens.sample])


GSPO = Objective(normalised, loss)
