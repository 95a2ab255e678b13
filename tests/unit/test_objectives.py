"""Each objective against its paper's formula, written out sample by sample in plain Python."""

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
LONGEST = 9
LENGTHS = (3, 5, 1, 9)
Rows = list[list[float]]


def random_rows(seed: int) -> tuple[Rows, Rows, Rows, list[float]]:
    """Log-probs, old log-probs and corrections of samples, and their advantages."""
    rng = np.random.default_rng(seed)
    new = [rng.uniform(-3, 0, n).tolist() for n in LENGTHS]
    old = [(np.array(row) + rng.normal(0, 0.4, len(row))).tolist() for row in new]
    weights = [rng.uniform(0.5, 2, n).tolist() for n in LENGTHS]
    return new, old, weights, rng.normal(0, 1, len(LENGTHS)).tolist()


def tokens(new: Rows, old: Rows, weights: Rows | None, advantage: list[float]) -> LossInputs:
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
        total += sum(k * clipped(math.exp(x - y), a) for x, y, k in zip(n, o, w, strict=True)) / LONGEST
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


def test_every_objective_has_a_formula_here() -> None:
    assert set(FORMULAS) == set(OBJECTIVES) == set(LearnerConfig.model_fields["objective"].annotation.__args__)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("corrected", [False, True])
def test_loss_is_that_of_the_formula(name: str, corrected: bool) -> None:
    for seed in range(20):
        new, old, weights, advantage = random_rows(seed)
        size = BatchSize(len(LENGTHS), sum(LENGTHS), LONGEST)
        found = OBJECTIVES[name].loss(tokens(new, old, weights if corrected else None, advantage), CLIP, size)
        ones = [[1.0] * n for n in LENGTHS]
        expected = -FORMULAS[name](new, old, weights if corrected else ones, advantage)
        assert found.loss.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradient_is_that_of_the_formula(name: str) -> None:
    new, old, weights, advantage = random_rows(3)
    given = tokens(new, old, weights, advantage)
    OBJECTIVES[name].loss(given, CLIP, BatchSize(len(LENGTHS), sum(LENGTHS), LONGEST)).loss.backward()
    slopes, at = [], 0
    for i, row in enumerate(new):
        for t in range(len(row)):
            bent = [[v + (1e-6 if (i, t) == (j, u) else 0) for u, v in enumerate(r)] for j, r in enumerate(new)]
            # CISPO holds its weight constant: the ratio must not move with the log-prob.
            base = [[o + (1e-6 if (i, t) == (j, u) else 0) for u, o in enumerate(r)] for j, r in enumerate(old)]
            moved = FORMULAS[name](bent, base if name == "cispo" else old, weights, advantage)
            slopes.append(-(moved - FORMULAS[name](new, old, weights, advantage)) / 1e-6)
            at += 1
    assert given.logprobs.grad is not None
    assert given.logprobs.grad.numpy() == pytest.approx(np.array(slopes), abs=1e-5)


@pytest.mark.parametrize("name", FORMULAS)
def test_cutting_a_batch_up_changes_nothing(name: str) -> None:
    new, old, weights, advantage = random_rows(5)
    size = BatchSize(len(LENGTHS), sum(LENGTHS), LONGEST)
    whole = OBJECTIVES[name].loss(tokens(new, old, weights, advantage), CLIP, size).loss
    parts = [slice(0, 1), slice(1, 4)]
    losses = [OBJECTIVES[name].loss(tokens(new[p], old[p], weights[p], advantage[p]), CLIP, size).loss for p in parts]
    assert sum(losses).item() == pytest.approx(whole.item(), rel=1e-12)
    reference = tokens(old, old, None, advantage).old_logprobs
    kl_aggregation = OBJECTIVES[name].kl_aggregation
    kl = kl_penalty(tokens(new, old, None, advantage), reference, size, kl_aggregation)
    cut = [
        kl_penalty(tokens(new[p], old[p], None, advantage[p]), tokens(old[p], old[p], None, advantage[p]).old_logprobs,
                   size, kl_aggregation)
        for p in parts
    ]  # fmt: skip
    assert sum(cut).item() == pytest.approx(kl.item(), rel=1e-12)


@pytest.mark.parametrize(
    ("shift", "advantage", "flows"), [(0.5, 1.0, False), (-0.5, 1.0, True), (0.5, -1.0, True), (-0.5, -1.0, False)]
)
@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "gspo"])
def test_clip_stops_the_gradient_of_steps_that_went_too_far(
    name: str, shift: float, advantage: float, flows: bool
) -> None:
    given = tokens([[-1.0]], [[-1.0 - shift]], None, [advantage])
    found = OBJECTIVES[name].loss(given, CLIP, BatchSize(1, 1, 1))
    found.loss.backward()
    assert bool(given.logprobs.grad.abs() > 0) is flows
    assert bool(found.clipped.all()) is not flows


def test_cispo_never_stops_a_gradient() -> None:
    given = tokens([[-1.0]], [[-3.0]], None, [1.0])
    OBJECTIVES["cispo"].loss(given, CLIP, BatchSize(1, 1, 1)).loss.backward()
    assert float(given.logprobs.grad) == pytest.approx(-1.28)


def test_kl_is_zero_for_equal_policies_and_positive_else() -> None:
    given = tokens([[-1.0, -2.0]], [[-1.0, -2.0]], None, [1.0])
    size = BatchSize(1, 2, 2)
    assert float(kl_penalty(given, given.old_logprobs, size, kl_aggregation="sample")) == 0
    assert float(kl_penalty(given, given.old_logprobs - 0.3, size, kl_aggregation="token")) > 0
    assert float(kl_penalty(given, given.old_logprobs + 0.3, size, kl_aggregation="token")) > 0


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


def test_dr_grpo_only_centres_them() -> None:
    config = LearnerConfig(objective="dr_grpo")
    assert advantages(group([0.0, 1.0, 2.0, 1.0], [2] * 4), config, 9).tolist() == [-1, 0, 1, 0]


def test_overlong_completions_lose_reward_within_the_buffer() -> None:
    assert overlong_penalty(np.array([1, 60, 70, 80, 90, 100]), 100, 40).tolist() == [0, 0, -0.25, -0.5, -0.75, -1]
    config = LearnerConfig(objective="dr_grpo", overlong_buffer=40)
    assert advantages(group([1.0, 1.0], [20, 80]), config, 100).tolist() == [0.25, -0.25]
