"""KL estimators and importance weights equal their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from geovlm_ray.learner.importance import Importance, importance_weights
from geovlm_ray.learner.kl import KlEstimator, kl_values

POLICY = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
REFERENCE = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
SAMPLE = torch.tensor([0, 0, 1])


def expected_value_and_gradient(estimator: KlEstimator) -> tuple[float, list[float]]:
    """Over a categorical policy: E[estimate], and E[gradient of the estimate] with respect to the policy's logits."""
    logits = POLICY.log().requires_grad_()
    logprobs = logits.log_softmax(-1)
    values = kl_values(logprobs, REFERENCE.log(), estimator)
    # The gradient of the loss is that of the estimates of sampled tokens, not of the probability of sampling them.
    (gradient,) = torch.autograd.grad((POLICY * values).sum(), logits)
    return (POLICY * values).sum().item(), gradient.tolist()


def exact(p: torch.Tensor, q: torch.Tensor, of: str) -> tuple[float, list[float]]:
    """KL(p || q) with p a softmax of logits (``of``: policy or reference), and its gradient."""
    logits = (p if of == "policy" else q).log().requires_grad_()
    soft = logits.softmax(-1)
    first, second = (soft, q) if of == "policy" else (p, soft)
    value = (first * (first.log() - second.log())).sum()
    (gradient,) = torch.autograd.grad(value, logits)
    return value.item(), gradient.tolist()


FORWARD = exact(POLICY, REFERENCE, "policy")
"""KL(policy || reference) and its gradient."""
REVERSE = exact(REFERENCE, POLICY, "reference")
"""KL(reference || policy) and its gradient."""


@pytest.mark.parametrize("estimator", ["k1", "k3", "k3_unbiased"])
def test_unbiased_estimators_have_the_value_of_the_divergence(estimator: KlEstimator) -> None:
    assert expected_value_and_gradient(estimator)[0] == pytest.approx(FORWARD[0])


def test_k2_is_half_the_squared_log_ratio() -> None:
    values = kl_values(POLICY.log(), REFERENCE.log(), "k2")
    assert values.tolist() == pytest.approx([math.log(p / r) ** 2 / 2 for p, r in zip(POLICY, REFERENCE, strict=True)])


@pytest.mark.parametrize(
    ("estimator", "gradient"),
    [("k1", [0.0] * 3), ("k2", FORWARD[1]), ("k3", REVERSE[1]), ("k3_unbiased", FORWARD[1])],
)
def test_gradient_is_that_of_the_documented_divergence(estimator: KlEstimator, gradient: list[float]) -> None:
    assert expected_value_and_gradient(estimator)[1] == pytest.approx(gradient, abs=1e-12)


def test_k3_is_zero_for_equal_policies_and_never_negative() -> None:
    assert kl_values(POLICY.log(), POLICY.log(), "k3").tolist() == [0, 0, 0]
    assert (kl_values(POLICY.log(), REFERENCE.log(), "k3") > 0).all()


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "k3_unbiased"])
def test_extreme_differences_are_finite(estimator: KlEstimator) -> None:
    logprobs = torch.tensor([-1000.0, 0.0]).requires_grad_()
    values = kl_values(logprobs, torch.tensor([0.0, -1000.0]), estimator)
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert torch.isfinite(logprobs.grad).all()


LOG_WEIGHT = torch.tensor([math.log(4), math.log(0.25), math.log(3)])


@pytest.mark.parametrize(
    ("correction", "level", "factors", "out"),
    [
        ("truncate", "token", [2, 0.25, 2], [True, False, True]),
        ("mask", "token", [0, 0, 0], [True, True, True]),
        ("truncate", "sequence", [1, 1, 2], [False, False, True]),
        ("mask", "sequence", [1, 1, 0], [False, False, True]),
    ],
)
def test_weights_are_bounded_or_dropped(correction: str, level: str, factors: list[float], out: list[bool]) -> None:
    settings = Importance(correction, level, 0.5, 2.0)  # type: ignore[arg-type]
    weights, out_of_bounds = importance_weights(settings, LOG_WEIGHT, SAMPLE, in_ratio=False)
    assert weights.tolist() == pytest.approx(factors)
    assert out_of_bounds.tolist() == out


@pytest.mark.parametrize(
    ("correction", "level", "factors"),
    [
        ("truncate", "token", [0.5, 1, 2 / 3]),
        ("mask", "token", [0, 0, 0]),
        ("truncate", "sequence", [1, 1, 2 / 3]),
        ("mask", "sequence", [1, 1, 0]),
    ],
)
def test_ratio_that_contains_the_weight_is_scaled_to_its_bound(
    correction: str, level: str, factors: list[float]
) -> None:
    settings = Importance(correction, level, 0.5, 2.0)  # type: ignore[arg-type]
    weights, _ = importance_weights(settings, LOG_WEIGHT, SAMPLE, in_ratio=True)
    assert weights.tolist() == pytest.approx(factors)


def test_extreme_weights_are_finite() -> None:
    for correction in ("truncate", "mask"):
        settings = Importance(correction, "sequence", 0.5, 2.0)  # type: ignore[arg-type]
        weights, _ = importance_weights(settings, torch.tensor([1e4, 0.0, -1e4]), SAMPLE, in_ratio=True)
        assert torch.isfinite(weights).all()
