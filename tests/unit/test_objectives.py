"""Every objective equals the formula of its paper, implemented per sample in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from geovlm_ray.core.schema import Prompt, RewardScore, Sample, SampleGroup
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.learner.config import LearnerConfig
from geovlm_ray.learner.loss_inputs import BatchSize, Clip, LossInputs, kl_penalty
from geovlm_ray.learner.objectives import OBJECTIVES, advantages
from geovlm_ray.learner.objectives.dapo import overlong_penalty

CLIP = Clip(0.2, 0.28)
MAX_TOKENS = 9
LENGTHS = (3, 5, 1, 9)
Rows = list[list[float]]


def random_rows(seed: int) -> tuple[Rows, Rows, Rows, list[float]]:
    """Log-probs, old log-probs and importance weights per token, and advantages per sample."""
    rng = np.random.default_rng(seed)
    new = [rng.uniform(-3, 0, n).tolist() for n in LENGTHS]
    old = [(np.array(row) + rng.normal(0, 0.4, len(row))).tolist() for row in new]
    weights = [rng.uniform(0.5, 2, n).tolist() for n in LENGTHS]
    return new, old, weights, rng.normal(0, 1, len(LENGTHS)).tolist()


def loss_inputs(new: Rows, old: Rows, weights: Rows | None, advantage: list[float]) -> LossInputs:
    flat = [torch.tensor([v for row in rows for v in row], dtype=torch.float64) for rows in (new, old)]
    return LossInputs(
        flat[0].requires_grad_(),
        flat[1],
        torch.repeat_interleave(torch.arange(len(new)), torch.tensor([len(r) for r in new])),
        torch.tensor(advantage, dtype=torch.float64),
        None if weights is None else torch.tensor([v for row in weights for v in row], dtype=torch.float64),
    )


def clipped(ratio: float, a: float) -> float:
    return min(ratio * a, min(max(ratio, 1 - CLIP.low), 1 + CLIP.high) * a)


def grpo(new: Rows, old: Rows, weights: Rows, advantage: list[float]) -> float:
    """1/G sum_i 1/|o_i| sum_t min(r A, clip(r) A)."""
    total = 0.0
    for n, o, w, a in zip(new, old, weights, advantage, strict=True):
        total += sum(k * clipped(math.exp(x - y), a) for x, y, k in zip(n, o, w, strict=True)) / len(n)
    return total / len(new)


def dr_grpo(new: Rows, old: Rows, weights: Rows, advantage: list[float]) -> float:
    """The same with a constant in place of |o_i|."""
    total = 0.0
    for n, o, w, a in zip(new, old, weights, advantage, strict=True):
        total += sum(k * clipped(math.exp(x - y), a) for x, y, k in zip(n, o, w, strict=True)) / MAX_TOKENS
    return total / len(new)


def dapo(new: Rows, old: Rows, weights: Rows, advantage: list[float]) -> float:
    """1 / sum_i |o_i| of the sum over all tokens."""
    rows = zip(new, old, weights, advantage, strict=True)
    total = sum(k * clipped(math.exp(x - y), a) for n, o, w, a in rows for x, y, k in zip(n, o, w, strict=True))
    return total / sum(map(len, new))


def gspo(new: Rows, old: Rows, weights: Rows, advantage: list[float]) -> float:
    """1/G sum_i min(s A, clip(s) A) with s = exp(mean of log-ratios)."""
    total = 0.0
    for n, o, w, a in zip(new, old, weights, advantage, strict=True):
        s = math.exp(sum(x - y for x, y in zip(n, o, strict=True)) / len(n))
        total += clipped(s, a) * sum(w) / len(w)
    return total / len(new)


def cispo(new: Rows, old: Rows, weights: Rows, advantage: list[float]) -> float:
    """1 / sum_i |o_i| of sg(clip(r)) A log p."""
    total = 0.0
    for n, o, w, a in zip(new, old, weights, advantage, strict=True):
        for x, y, k in zip(n, o, w, strict=True):
            total += k * min(max(math.exp(x - y), 1 - CLIP.low), 1 + CLIP.high) * a * x
    return total / sum(map(len, new))


FORMULAS: dict[str, Callable[..., float]] = {
    "grpo": grpo, "dr_grpo": dr_grpo, "dapo": dapo, "gspo": gspo, "cispo": cispo
}  # fmt: skip


def test_every_objective_has_a_reference_formula() -> None:
    assert set(FORMULAS) == set(OBJECTIVES)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("corrected", [False, True])
def test_loss_equals_the_formula(name: str, corrected: bool) -> None:
    for seed in range(20):
        new, old, weights, advantage = random_rows(seed)
        size = BatchSize(len(LENGTHS), sum(LENGTHS), MAX_TOKENS)
        result = OBJECTIVES[name].loss(loss_inputs(new, old, weights if corrected else None, advantage), CLIP, size)
        ones = [[1.0] * n for n in LENGTHS]
        expected = -FORMULAS[name](new, old, weights if corrected else ones, advantage)
        assert result.loss.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradient_equals_the_formula(name: str) -> None:
    new, old, weights, advantage = random_rows(3)
    inputs = loss_inputs(new, old, weights, advantage)
    OBJECTIVES[name].loss(inputs, CLIP, BatchSize(len(LENGTHS), sum(LENGTHS), MAX_TOKENS)).loss.backward()
    slopes: list[float] = []
    for i, row in enumerate(new):
        for t in range(len(row)):
            shifted = [[v + (1e-6 if (i, t) == (j, u) else 0) for u, v in enumerate(r)] for j, r in enumerate(new)]
            # CISPO treats the clipped ratio as a constant: shift the old log-prob too, so that the ratio stays fixed.
            shifted_old = [[o + (1e-6 if (i, t) == (j, u) else 0) for u, o in enumerate(r)] for j, r in enumerate(old)]
            value = FORMULAS[name](shifted, shifted_old if name == "cispo" else old, weights, advantage)
            slopes.append(-(value - FORMULAS[name](new, old, weights, advantage)) / 1e-6)
    assert inputs.logprobs.grad is not None
    assert inputs.logprobs.grad.numpy() == pytest.approx(np.array(slopes), abs=1e-5)


@pytest.mark.parametrize("name", FORMULAS)
def test_loss_and_kl_are_additive_over_micro_batches(name: str) -> None:
    new, old, weights, advantage = random_rows(5)
    size = BatchSize(len(LENGTHS), sum(LENGTHS), MAX_TOKENS)
    full = OBJECTIVES[name].loss(loss_inputs(new, old, weights, advantage), CLIP, size).loss
    parts = [slice(0, 1), slice(1, 4)]
    losses = [
        OBJECTIVES[name].loss(loss_inputs(new[p], old[p], weights[p], advantage[p]), CLIP, size).loss for p in parts
    ]
    assert sum(losses).item() == pytest.approx(full.item(), rel=1e-12)
    reference = loss_inputs(old, old, None, advantage).old_logprobs
    kl_aggregation = OBJECTIVES[name].kl_aggregation
    kl = kl_penalty(loss_inputs(new, old, None, advantage), reference, size, kl_aggregation)
    kl_parts = [
        kl_penalty(
            loss_inputs(new[p], old[p], None, advantage[p]),
            loss_inputs(old[p], old[p], None, advantage[p]).old_logprobs,
            size,
            kl_aggregation,
        )
        for p in parts
    ]
    assert sum(kl_parts).item() == pytest.approx(kl.item(), rel=1e-12)


@pytest.mark.parametrize(
    ("shift", "advantage", "has_gradient"),
    [(0.5, 1.0, False), (-0.5, 1.0, True), (0.5, -1.0, True), (-0.5, -1.0, False)],
)
@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "gspo"])
def test_clipped_ratio_has_no_gradient(name: str, shift: float, advantage: float, has_gradient: bool) -> None:
    inputs = loss_inputs([[-1.0]], [[-1.0 - shift]], None, [advantage])
    result = OBJECTIVES[name].loss(inputs, CLIP, BatchSize(1, 1, 1))
    result.loss.backward()
    assert bool(inputs.logprobs.grad.abs() > 0) is has_gradient
    assert bool(result.clipped.all()) is not has_gradient


def test_cispo_keeps_the_gradient_of_clipped_ratios() -> None:
    inputs = loss_inputs([[-1.0]], [[-3.0]], None, [1.0])
    OBJECTIVES["cispo"].loss(inputs, CLIP, BatchSize(1, 1, 1)).loss.backward()
    assert float(inputs.logprobs.grad) == pytest.approx(-1.28)


def test_kl_is_zero_for_equal_policies_and_positive_otherwise() -> None:
    inputs = loss_inputs([[-1.0, -2.0]], [[-1.0, -2.0]], None, [1.0])
    size = BatchSize(1, 2, 2)
    assert float(kl_penalty(inputs, inputs.old_logprobs, size, kl_aggregation="sample")) == 0
    assert float(kl_penalty(inputs, inputs.old_logprobs - 0.3, size, kl_aggregation="token")) > 0
    assert float(kl_penalty(inputs, inputs.old_logprobs + 0.3, size, kl_aggregation="token")) > 0


def group(rewards: list[float], lengths: list[int]) -> SampleGroup:
    samples = [
        Sample((1,) * n, (-1.0,) * n, "", "stop", 0, RewardScore(r, 1.0, r))
        for r, n in zip(rewards, lengths, strict=True)
    ]
    return SampleGroup(Prompt(0, scene_example("vqa", 0, 0)), tuple(samples))


def test_advantages_are_normalised_within_the_group() -> None:
    config = LearnerConfig()
    values = advantages(group([0.0, 1.0, 2.0, 1.0], [2] * 4), config, 9)
    assert values.mean() == pytest.approx(0)
    assert values.std() == pytest.approx(1, abs=1e-4)
    assert not advantages(group([1.3] * 8, [2] * 8), config, 9).any()
    pair = [advantages(group(rewards, [2, 2]), config, 9) for rewards in ([10.0, 30.0], [0.1, 0.3])]
    assert np.allclose(*pair, atol=1e-4)


def test_dr_grpo_advantages_are_only_centred() -> None:
    config = LearnerConfig(objective="dr_grpo")
    assert advantages(group([0.0, 1.0, 2.0, 1.0], [2] * 4), config, 9).tolist() == [-1, 0, 1, 0]


def test_overlong_penalty_grows_linearly_within_the_buffer() -> None:
    assert overlong_penalty(np.array([1, 60, 70, 80, 90, 100]), 100, 40).tolist() == [0, 0, -0.25, -0.5, -0.75, -1]
    config = LearnerConfig(objective="dr_grpo", overlong_buffer=40)
    assert advantages(group([1.0, 1.0], [20, 80]), config, 100).tolist() == [0.25, -0.25]
