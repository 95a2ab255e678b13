"""CISPO: clips the importance weight but keeps every token's gradient (MiniMax-M1, arXiv 2506.13585, equation 4)."""

from __future__ import annotations

from geovlm_ray.learner.advantages import normalised
from geovlm_ray.learner.loss_inputs import BatchSize, Clip, LossInputs, Objective, PolicyLoss


def loss(tokens: LossInputs, clip: Clip, size: BatchSize) -> PolicyLoss:
    """Mean over all tokens of clipped importance weight (detached) x advantage x log-prob."""
    weight = clip(tokens.log_ratio.detach().exp())
    values = weight * tokens.advantages[tokens.sample] * tokens.logprobs
    none_clipped = tokens.sample < 0
    return PolicyLoss(-tokens.weighted(values).sum() / size.tokens, none_clipped)


CISPO = Objective(normalised, loss, kl_aggregation="token")
