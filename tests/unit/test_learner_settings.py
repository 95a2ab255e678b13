"""Each setting of the learner's loss has the gradient of its formula, computed with a plain forward pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from geovlm_ray.core.schema import RewardScore, Sample, SampleGroup
from geovlm_ray.learner.config import LearnerConfig
from geovlm_ray.learner.grpo_learner import GrpoLearner
from geovlm_ray.model.config import LoraSettings, ModelConfig
from geovlm_ray.model.loading import load_model, model_folder
from geovlm_ray.model.prompts import PromptEncoder
from geovlm_ray.model.rows import Completion
from tests.saving import save_whole
from tests.unit.plain_forward import plain_logits
from tests.unit.test_grpo import group, learner

REWARDS = [0.0, 2.0, 1.0]
STD = 1.0
"""Sample standard deviation of the rewards."""
ADVANTAGES = [-1.0, 1.0, 0.0]
Loss = Callable[[list[torch.Tensor], list[torch.Tensor]], torch.Tensor]
"""Loss from each completion's log-probs [T] and entropies [T]."""


def gradient_of(
    policy: GrpoLearner, monkeypatch: pytest.MonkeyPatch, groups: list[SampleGroup]
) -> dict[str, torch.Tensor]:
    """Gradient of a learner's step, before clipping."""
    found: dict[str, torch.Tensor] = {}

    def keep(max_norm: float) -> dict[str, float]:
        found.update({name: p.grad.clone() for name, p in policy.trained.items() if p.grad is not None})
        return {"grad_norm": 0.0}

    monkeypatch.setattr(policy, "clip_gradient", keep)
    policy.step(groups)
    return found


def expected_gradient(policy: GrpoLearner, encoder: PromptEncoder, loss: Loss) -> dict[str, torch.Tensor]:
    model = load_model(ModelConfig(), model_folder("tiny"), torch.device("cpu"), 0)
    (only,) = GROUPS
    logprobs, entropies = [], []
    for sample in only.samples:
        logits = plain_logits(model, encoder.encode(only.prompt.example), Completion(sample.token_ids))
        logits = logits.index_fill(-1, policy.banned, float("-inf"))
        distribution = torch.distributions.Categorical(logits=logits)
        logprobs.append(distribution.log_prob(torch.tensor(sample.token_ids)))
        probabilities = distribution.probs
        entropies.append(-(probabilities * probabilities.clamp(min=1e-30).log()).sum(-1))
    loss(logprobs, entropies).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    scale = max(float(g.norm()) for g in expected.values())
    assert scale > 0
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-5 * scale, name


GROUPS = [group(0, REWARDS)]


def grpo_term(logprobs: torch.Tensor, advantage: float, weight: torch.Tensor | float = 1.0) -> torch.Tensor:
    """Mean over a completion of the on-policy surrogate, whose ratio to the old policy is 1."""
    return (weight * advantage * (logprobs - logprobs.detach()).exp()).mean()


def policy_loss(logprobs: list[torch.Tensor]) -> torch.Tensor:
    """GRPO with the learner's log-probs as those of the old policy."""
    return -sum(grpo_term(row, a) for row, a in zip(logprobs, ADVANTAGES, strict=True)) / len(logprobs)  # type: ignore[return-value]


ON_POLICY = {"old_logprobs": "learner", "importance": "none"}


def test_plain_grpo(encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = learner(encoder, **ON_POLICY)
    found = gradient_of(policy, monkeypatch, GROUPS)
    assert_equal(found, expected_gradient(policy, encoder, lambda logprobs, _: policy_loss(logprobs)))


def test_entropy_bonus(encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = learner(encoder, entropy_bonus=0.3, **ON_POLICY)
    found = gradient_of(policy, monkeypatch, GROUPS)

    def loss(logprobs: list[torch.Tensor], entropies: list[torch.Tensor]) -> torch.Tensor:
        return policy_loss(logprobs) - 0.3 * sum(row.mean() for row in entropies) / len(entropies)

    assert_equal(found, expected_gradient(policy, encoder, loss))


def shifted_reference(policy: GrpoLearner) -> Callable[[torch.Tensor], torch.Tensor]:
    """Make the reference's log-probs those of the policy plus a wave; returns the wave's form for N tokens."""

    def wave(n: int) -> torch.Tensor:
        return 0.5 * torch.sin(torch.arange(n, dtype=torch.float32))

    policy._reference_logprobs = lambda micro: (
        policy._scores_without_gradient(micro) + wave(len(micro.rollout_logprobs))
    )  # type: ignore[method-assign]
    return lambda logprobs: logprobs.detach() + wave(len(logprobs))


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "k3_unbiased"])
def test_kl_penalty_in_the_loss(encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch, estimator: str) -> None:
    policy = learner(encoder, kl_beta=0.4, kl_estimator=estimator, **ON_POLICY)
    reference = shifted_reference(policy)
    found = gradient_of(policy, monkeypatch, GROUPS)

    def loss(logprobs: list[torch.Tensor], entropies: list[torch.Tensor]) -> torch.Tensor:
        references = reference(torch.cat(logprobs)).split([len(row) for row in logprobs])
        formulas = {
            "k1": lambda d: d,
            "k2": lambda d: d**2 / 2,
            "k3": lambda d: (-d).exp() - 1 + d,
            "k3_unbiased": lambda d: d**2 / 2,
        }
        kl = sum(formulas[estimator](p - r).mean() for p, r in zip(logprobs, references, strict=True))
        return policy_loss(logprobs) + 0.4 * kl / len(logprobs)

    assert_equal(found, expected_gradient(policy, encoder, loss))


@pytest.mark.parametrize(("objective", "divisor"), [("dr_grpo", "fixed"), ("dapo", "tokens")])
def test_kl_penalty_is_averaged_like_the_policy_term(
    encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch, objective: str, divisor: str
) -> None:
    policy = learner(encoder, kl_beta=0.4, objective=objective, **ON_POLICY)
    reference = shifted_reference(policy)
    found = gradient_of(policy, monkeypatch, GROUPS)
    advantages = [r - 1.0 for r in REWARDS] if objective == "dr_grpo" else ADVANTAGES

    def loss(logprobs: list[torch.Tensor], entropies: list[torch.Tensor]) -> torch.Tensor:
        references = reference(torch.cat(logprobs)).split([len(row) for row in logprobs])
        total = logprobs[0].new_zeros(())
        for p, r, a in zip(logprobs, references, advantages, strict=True):
            total = total + (-a * (p - p.detach()).exp() + 0.4 * ((r - p).exp() - 1 - (r - p))).sum()
        return total / (64 * len(logprobs) if divisor == "fixed" else sum(map(len, logprobs)))

    assert_equal(found, expected_gradient(policy, encoder, loss))


def test_kl_penalty_in_the_reward(encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = learner(encoder, kl_beta=0.4, kl_in="reward", kl_estimator="k1", **ON_POLICY)
    reference = shifted_reference(policy)
    found = gradient_of(policy, monkeypatch, GROUPS)

    def loss(logprobs: list[torch.Tensor], entropies: list[torch.Tensor]) -> torch.Tensor:
        references = reference(torch.cat(logprobs)).split([len(row) for row in logprobs])
        kl = [float((p - r).sum().detach()) for p, r in zip(logprobs, references, strict=True)]
        rewards = np.array(REWARDS) - 0.4 * np.array(kl)
        advantages = (rewards - rewards.mean()) / rewards.std(ddof=1)
        return -sum(grpo_term(p, float(a)) for p, a in zip(logprobs, advantages, strict=True)) / len(logprobs)  # type: ignore[return-value]

    assert_equal(found, expected_gradient(policy, encoder, loss))


@pytest.mark.parametrize("old_logprobs", ["learner", "engine"])
@pytest.mark.parametrize("correction", ["truncate", "mask"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_importance_correction(
    encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch, old_logprobs: str, correction: str, level: str
) -> None:
    """The engine's log-probs differ from the learner's by a wave; without clipping, only weights bound ratios."""
    low = 0.8 if level == "token" else 0.55
    bounds = {"importance_low": low, "importance_high": 1.3}
    settings = {"clip_low": 1.0, "clip_high": 1e6, "dual_clip": None, "importance": correction}
    policy = learner(encoder, old_logprobs=old_logprobs, importance_level=level, **bounds, **settings)
    samples, waves = [], []
    for sample, row in zip(GROUPS[0].samples, policy.logprobs(GROUPS), strict=True):
        wave = 0.4 * np.sin(np.arange(len(row)) + len(row))
        waves.append(torch.tensor(wave, dtype=torch.float32))
        samples.append(Sample(sample.token_ids, tuple(row - wave), "", "stop", 0, sample.reward))
    found = gradient_of(policy, monkeypatch, [SampleGroup(GROUPS[0].prompt, tuple(samples))])

    def loss(logprobs: list[torch.Tensor], entropies: list[torch.Tensor]) -> torch.Tensor:
        total = logprobs[0].new_zeros(())
        for p, wave, a in zip(logprobs, waves, ADVANTAGES, strict=True):
            weight = (wave.sum() if level == "sequence" else wave).exp()
            if correction == "truncate":
                factor = weight.clamp(max=1.3) / weight
            else:
                factor = ((weight >= low) & (weight <= 1.3)).float()
            # In engine mode the ratio itself holds the token's weight; in learner mode the factor does.
            own = wave.exp() if old_logprobs == "engine" else weight
            total = total + grpo_term(p, a, factor * own)
        return -total / len(logprobs)

    assert_equal(found, expected_gradient(policy, encoder, loss))


def test_kl_is_recorded_without_a_penalty_by_option(encoder: PromptEncoder) -> None:
    policy = learner(encoder, kl_metric=True)
    assert policy.step(GROUPS)["loss/kl"] == pytest.approx(0, abs=1e-6)
    with_metric = policy.step(GROUPS)
    plain = learner(encoder)
    plain.step(GROUPS)
    without = plain.step(GROUPS)
    assert with_metric["loss/kl"] > 0
    assert without["loss/kl"] == 0
    assert with_metric["grad_norm"] == without["grad_norm"]


def test_exact_entropy_is_recorded_by_task_by_option(encoder: PromptEncoder) -> None:
    groups = [group(0, REWARDS), group(1, REWARDS, task="object_detection")]
    policy = learner(encoder, entropy="exact")
    metrics = policy.step(groups)
    names = {"task/vqa/entropy_exact", "task/object_detection/entropy_exact", "entropy/exact"}
    assert names <= set(metrics)
    assert min(metrics[name] for name in names) > 0
    assert not names & set(learner(encoder).step(groups))


@pytest.mark.parametrize(
    "model", [ModelConfig(), ModelConfig(freeze_vision=True), ModelConfig(lora=LoraSettings(rank=4))]
)
def test_gradient_norm_is_split_by_part(encoder: PromptEncoder, model: ModelConfig) -> None:
    metrics = learner(encoder, model).step(GROUPS)
    parts = [metrics[name] for name in ("grad_norm/vision", "grad_norm/language") if name in metrics]
    assert np.hypot.reduce(parts) == pytest.approx(metrics["grad_norm"], rel=1e-5)
    assert len(parts) == (2 if model == ModelConfig() else 1)


def test_frozen_vision_tower_does_not_change(encoder: PromptEncoder) -> None:
    policy = learner(encoder, ModelConfig(freeze_vision=True))
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    policy.step(GROUPS)
    changed = {name for name, p in policy.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert not [name for name in changed if ".visual." in name]


def test_checkpoint_of_a_policy_with_a_frozen_vision_tower_is_whole(encoder: PromptEncoder, tmp_path: Path) -> None:
    policy = learner(encoder, ModelConfig(freeze_vision=True))
    save_whole(policy, tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == load_file(model_folder("tiny") / "model.safetensors").keys()


def test_completion_without_a_score_changes_nothing_but_the_mean(encoder: PromptEncoder) -> None:
    lost = group(0, [*REWARDS, 1.7])
    samples = (*lost.samples[:3], Sample((300,), (-2.0,), "", "stop", 0, RewardScore(1.7, 1.0, 0.7, status="error")))
    norms = [
        learner(encoder, **ON_POLICY).step([g])["grad_norm"] * len(g.samples)
        for g in (GROUPS[0], SampleGroup(lost.prompt, samples))
    ]
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)


def test_unknown_objective_is_refused() -> None:
    with pytest.raises(ValueError, match="objective: expected one of grpo, dr_grpo"):
        LearnerConfig(objective="ppo")
