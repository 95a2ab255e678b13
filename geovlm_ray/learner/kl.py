"""Estimators of the KL divergence to the reference policy (Schulman, Approximating KL Divergence, 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from geovlm_ray.learner.loss_inputs import MAX_LOG_RATIO

if TYPE_CHECKING:
    import torch

KlEstimator = Literal["k1", "k2", "k3", "k3_unbiased"]


def kl_values(logprobs: torch.Tensor, reference: torch.Tensor, estimator: KlEstimator) -> torch.Tensor:
    """Per-token estimates [N] of KL(policy || reference), for tokens [N] sampled from the policy.

    ``logprobs`` (with gradient) and ``reference`` are the tokens' log-probs. With p = policy and r = reference:

    - ``k1``: log p - log r. Unbiased; its expected gradient is 0, so it only makes sense as part of the reward.
    - ``k2``: (log p - log r)^2 / 2. Biased, but its expected gradient is that of KL(policy || reference).
    - ``k3``: r/p - 1 - log(r/p). Unbiased and non-negative; its expected gradient is that of KL(reference || policy)
      (DeepSeekMath, arXiv 2402.03300, equation 4).
    - ``k3_unbiased``: the value of k3 with the gradient of k2 (verl's ``k3+``).
    """
    difference = (logprobs - reference).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    if estimator == "k1":
        return difference
    squares = difference.square() / 2
    if estimator == "k2":
        return squares
    k3 = (-difference).exp() - 1 + difference
    if estimator == "k3":
        return k3
    return squares + (k3 - squares).detach()
