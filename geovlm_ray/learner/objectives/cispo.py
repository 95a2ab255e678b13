"""CISPO: clips the importance weight but keeps every token's gradient (MiniMax-M1, arXiv 2506.13585, equation 4).

The default bounds are [0, 5]: the paper clips only from above, at a value it does not state; SkyRL uses [0, 5].
"""

from __future__ import annotations

from geovlm_ray.learner.loss_inputs import Clip, LossInputs, Objective, Surrogate


def surrogate(tokens: LossInputs, clip: Clip) -> Surrogate:
    """Clipped importance weight (detached) x advantage x log-prob, per token."""
    ratio = tokens.log_ratio.detach().exp()
    weight = clip(ratio)
    values = weight * tokens.advantages[tokens.sample] * tokens.logprobs
    return Surrogate(values, ratio < weight, ratio > weight, tokens.sample < 0)


CISPO = Objective(surrogate, "token_mean", clip_low=1.0, clip_high=4.0)
