"""DAPO: token-level loss, higher upper clip bound (Yu et al., arXiv 2503.14476, equation 8).

The paper's other two parts are separate settings: dynamic sampling is ``loop.resample``, the soft overlong punishment
is ``learner.overlong_buffer``. The paper's clip is ``clip_low=0.2 clip_high=0.28``.
"""

from __future__ import annotations

import numpy as np

from geovlm_ray.learner.advantages import normalised
from geovlm_ray.learner.loss_inputs import BatchSize, Clip, LossInputs, Objective, PolicyLoss, surrogate


def loss(tokens: LossInputs, clip: Clip, size: BatchSize) -> PolicyLoss:
    """Mean of the clipped surrogate over all tokens of the batch."""
    values, clipped = surrogate(tokens, tokens.log_ratio.exp(), clip)
    return PolicyLoss(-tokens.weighted(values).sum() / size.tokens, clipped)


def overlong_penalty(lengths: np.ndarray, max_completion_tokens: int, buffer: int) -> np.ndarray:
    """DAPO's soft overlong punishment (equation 13), in [-1, 0] per completion.

    0 up to ``max_completion_tokens - buffer`` tokens, then linear down to -1 at ``max_completion_tokens``.
    """
    return np.clip((max_completion_tokens - buffer - np.asarray(lengths)) / buffer, -1.0, 0.0)


DAPO = Objective(normalised, loss, kl_aggregation="token")
