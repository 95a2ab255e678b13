"""GRPO: DeepSeekMath (arXiv 2402.03300), equation 3 without the KL term.

Mean of the clipped surrogate over each sample's tokens, then over samples.
"""

from geovlm_ray.learner.loss_inputs import Objective, clipped_surrogate

GRPO = Objective(clipped_surrogate, "sample_mean")
