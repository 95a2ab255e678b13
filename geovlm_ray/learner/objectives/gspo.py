"""GSPO: sequence-level ratio and clipping (Zheng et al., arXiv 2507.18071, equations 5 and 7).

The default bounds are those of the paper's experiments (section 5.1): a mean of log-ratios is much closer to 0 than a
single one. They clip most samples if ``old_logprobs`` are the engine's and engine and learner round differently.
"""

from __future__ import annotations

from geovlm_ray.learner.loss_inputs import Clip, LossInputs, Objective, Surrogate


def surrogate(tokens: LossInputs, clip: Clip) -> Surrogate:
    """Clipped surrogate of the length-normalised sequence likelihood ratio, the same for all tokens of a sample."""
    ratio = (tokens.per_sample(tokens.log_ratio) / tokens.lengths).exp()
    unclipped, bounded = ratio * tokens.advantages, clip(ratio) * tokens.advantages
    clipped = unclipped > bounded
    low, high = clipped & (tokens.advantages < 0), clipped & (tokens.advantages > 0)
    return Surrogate(
        unclipped.minimum(bounded)[tokens.sample], low[tokens.sample], high[tokens.sample], tokens.sample < 0
    )


GSPO = Objective(surrogate, "sample_mean", clip_low=3e-4, clip_high=4e-4)
