"""Dr. GRPO: GRPO without its length and difficulty biases (Liu et al., arXiv 2503.20783, section 3.2).

Sum of the clipped surrogate over each sample's tokens divided by the maximum completion length, then the mean over
samples.
"""

from geovlm_ray.learner.loss_inputs import Objective, clipped_surrogate

DR_GRPO = Objective(clipped_surrogate, "fixed_length", scale="none")
