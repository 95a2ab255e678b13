"""DAPO: token-level loss, higher upper clip bound (Yu et al., arXiv 2503.14476, equation 8).

Mean of the clipped surrogate over all tokens of the batch. The paper's other parts are separate settings: dynamic
sampling is ``loop.resample``, the soft overlong punishment ``learner.overlong_buffer``.
"""

from geovlm_ray.learner.loss_inputs import Objective, clipped_surrogate

DAPO = Objective(clipped_surrogate, "token_mean", clip_high=0.28)
