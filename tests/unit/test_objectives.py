"""Every objective equals the formula of its paper, implemented per sample in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from geovlm_ray.learner.config import LearnerConfig
from geovlm_ray.learner.loss_inputs import BatchSize, Clip, LossInputs
from geovlm_ray.learner.objectives import OBJECTIVES

CLIP = Clip(0.2, 0.28, 1.8)
MAX_TOKENS = 9
LENGTHS = (3, 5, 1, 9)
SIZE = BatchSize(len(LENGTHS), sum(LENGTHS), MAX_TOKENS)
Rows = list[list[float]]


def random_rows(seed: int) -> tuple[Rows, Rows, Rows, list[float]]:
    """Log-probs, old log-probs and importance weights per token, and advantages per sample."""
    rng = np.random.default_rng(seed)
    new = [rng.uniform(-3, 0, n).tolist() for n in LENGTHS]
    old = [(np.array(row) + rng.normal(0, 0.6, len(row))).tolist() for row in new]
    weights = [rng.uniform(0.5, 2, n).tolist() for n in LENGTHS]
    return new, old, weights, rng.normal(0, 1, len(LENGTHS)).tolist()


def flat(rows: Rows) -> torch.Tensor:
    return torch.tensor([v for row in rows for v in row], dtype=torch.float64)


def loss_inputs(new: Rows, old: Rows, advantage: list[float]) -> LossInputs:
    return LossInputs(
        flat(new).requires_grad_(),
        flat(old),
        torch.repeat_interleave(torch.arange(len(new)), torch.tensor([len(r) for r in new])),
        torch.tensor(advantage, dtype=torch.float64),
    )


def clipped(ratio: float, a: float) -> float:
    return min(ratio * a, min(max(ratio, 1 - CLIP.low), 1 + CLIP.high) * a)


def dual_clipped(ratio: float, a: float) -> float:
    """max(min(r A, clip(r) A), c A) if A < 0."""
    return max(clipped(ratio, a), CLIP.dual * a) if a < 0 and CLIP.dual else clipped(ratio, a)


def grpo(new: Rows, old: Rows, weights: Rows, advantage: list[float]) -> float:
    """1/G sum_i 1/|o_i| sum_t min(r A, clip(r) A), with the dual clip."""
    total = 0.0
    for n, o, w, a in zip(new, old, weights, advantage, strict=True):
        total += sum(k * dual_clipped(math.exp(x - y), a) for x, y, k in zip(n, o, w, strict=True)) / len(n)
    return total / len(new)


def dr_grpo(new: Rows, old: Rows, weights: Rows, advantage: list[float]) -> float:
    """The same with a constant in place of |o_i|."""
    total = 0.0
    for n, o, w, a in zip(new, old, weights, advantage, strict=True):
        total += sum(k * dual_clipped(math.exp(x - y), a) for x, y, k in zip(n, o, w, strict=True)) / MAX_TOKENS
    return total / len(new)


def dapo(new: Rows, old: Rows, weights: Rows, advantage: list[float]) -> float:
    """1 / sum_i |o_i| of the sum over all tokens."""
    rows = zip(new, old, weights, advantage, strict=True)
    total = sum(k * dual_clipped(math.exp(x - y), a) for n, o, w, a in rows for x, y, k in zip(n, o, w, strict=True))
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
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_equals_the_formula(name: str, weighted: bool) -> None:
    for seed in range(20):
        new, old, weights, advantage = random_rows(seed)
        weights = weights if weighted else [[1.0] * n for n in LENGTHS]
        loss, _ = OBJECTIVES[name].loss(loss_inputs(new, old, advantage), CLIP, SIZE, flat(weights))
        assert loss.item() == pytest.approx(-FORMULAS[name](new, old, weights, advantage), rel=1e-9)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradient_equals_the_formula(name: str) -> None:
    new, old, weights, advantage = random_rows(3)
    inputs = loss_inputs(new, old, advantage)
    OBJECTIVES[name].loss(inputs, CLIP, SIZE, flat(weights))[0].backward()
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
def test_loss_is_additive_over_micro_batches(name: str) -> None:
    new, old, weights, advantage = random_rows(5)
    full, _ = OBJECTIVES[name].loss(loss_inputs(new, old, advantage), CLIP, SIZE, flat(weights))
    losses = [
        OBJECTIVES[name].loss(loss_inputs(new[p], old[p], advantage[p]), CLIP, SIZE, flat(weights[p]))[0]
        for p in (slice(0, 1), slice(1, 4))
    ]
    assert sum(losses).item() == pytest.approx(full.item(), rel=1e-12)


@pytest.mark.parametrize(
    ("shift", "advantage", "side"),
    [(0.5, 1.0, "clipped_high"), (-0.5, 1.0, None), (0.5, -1.0, None), (-0.5, -1.0, "clipped_low")],
)
@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "gspo"])
def test_clipped_ratio_has_no_gradient_and_is_counted_by_side(
    name: str, shift: float, advantage: float, side: str | None
) -> None:
    inputs = loss_inputs([[-1.0]], [[-1.0 - shift]], [advantage])
    loss, surrogate = OBJECTIVES[name].loss(inputs, CLIP, BatchSize(1, 1, 1))
    loss.backward()
    assert bool(inputs.logprobs.grad.abs() > 0) is (side is None)
    sides = {name: bool(getattr(surrogate, name)) for name in ("clipped_low", "clipped_high", "clipped_dual")}
    assert sides == dict.fromkeys(sides, False) | ({side: True} if side else {})


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo"])
def test_dual_clip_bounds_only_negative_advantages(name: str) -> None:
    for advantage, dual, is_clipped in ((-1.0, 3.0, True), (-1.0, None, False), (1.0, 3.0, False)):
        inputs = loss_inputs([[-1.0]], [[-3.0]], [advantage])
        loss, surrogate = OBJECTIVES[name].loss(inputs, Clip(0.2, 100.0, dual), BatchSize(1, 1, 1))
        loss.backward()
        assert bool(surrogate.clipped_dual) is is_clipped
        assert loss.item() == pytest.approx(3.0 if is_clipped else -math.exp(2) * advantage)
        assert bool(inputs.logprobs.grad.abs() > 0) is not is_clipped


def test_cispo_keeps_the_gradient_of_clipped_ratios() -> None:
    inputs = loss_inputs([[-1.0]], [[-3.0]], [1.0])
    loss, surrogate = OBJECTIVES["cispo"].loss(inputs, CLIP, BatchSize(1, 1, 1))
    loss.backward()
    assert float(inputs.logprobs.grad) == pytest.approx(-1.28)
    assert surrogate.clipped_high.all()


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("difference", [1000.0, -1000.0])
@pytest.mark.parametrize("advantage", [0.0, 1.0, -1.0])
def test_extreme_ratios_are_finite(name: str, difference: float, advantage: float) -> None:
    inputs = loss_inputs([[-1.0, -1.0]], [[-1.0 - difference, -1.0]], [advantage])
    loss, _ = OBJECTIVES[name].loss(inputs, LearnerConfig(objective=name, dual_clip=None).clip, BatchSize(1, 2, 2))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(inputs.logprobs.grad).all()
    if advantage == 0:
        assert not inputs.logprobs.grad.any()


def test_clip_bounds_default_to_those_of_the_objective() -> None:
    assert LearnerConfig().clip == Clip(0.2, 0.2, 3.0)
    assert LearnerConfig(objective="dapo").clip == Clip(0.2, 0.28, 3.0)
    assert LearnerConfig(objective="gspo").clip == Clip(3e-4, 4e-4, 3.0)
    cispo = LearnerConfig(objective="cispo").clip
    assert (1 - cispo.low, 1 + cispo.high) == (0, 5)
    assert LearnerConfig(objective="dapo", clip_high=0.3, dual_clip=None).clip == Clip(0.2, 0.3)
