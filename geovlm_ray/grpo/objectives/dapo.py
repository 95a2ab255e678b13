"""DAPO: every token weighs the same, the clip is wider above than below (Yu et al., arXiv 2503.14476, equation 8).

Its other two parts are settings of their own: dynamic sampling is ``loop.resample``, the soft punishment of overlong
completions is ``learner.overlong_buffer``. The paper's clip is ``clip_low=0.2 clip_high=0.28``.
"""

from __future__ import annotations

import numpy as np

from geovlm_ray.grpo.advantages import normalised
from geovlm_ray.grpo.tokens import BatchSize, Clip, Objective, PolicyLoss, Tokens, surrogate


def loss(tokens: Tokens, clip: Clip, size: BatchSize) -> PolicyLoss:
    """Mean of the clipped surrogate over all tokens of the batch."""
    values, clipped = surrogate(tokens, tokens.log_ratio.exp(), clip)
    return PolicyLoss(-tokens.weighted(values).sum() / size.tokens, clipped)


def overlong_penalty(lengths: np.ndarray, longest: int, buffer: int) -> np.ndarray:
    """What is added to the rewards of completions, in [-1, 0]: 0 up to ``buffer`` tokens below the longest length,
    then falling in a line to -1 at it (equation 13).
    """
    return np.clip((longest - buffer - np.asarray(lengths)) / buffer, -1.0, 0.0)


DAPO = Objective(normalised, loss, per_token=True)
