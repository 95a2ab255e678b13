"""GRPO: advantages, the clipped loss, what is admitted, and what one step does to a policy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from geovlm_ray.config import Config
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.grpo.admission import admit
from geovlm_ray.grpo.advantages import group_advantages
from geovlm_ray.grpo.config import LearnerConfig
from geovlm_ray.grpo.learner import GrpoLearner
from geovlm_ray.grpo.loss import grpo_loss, kl_penalty
from geovlm_ray.policy.config import LoraSettings, ModelConfig
from geovlm_ray.policy.forward import CompletionBatch, completion_logprobs, sequence_logits
from geovlm_ray.policy.model import resolve_model
from geovlm_ray.policy.prompts import PromptEncoder
from geovlm_ray.schema import Prompt, RewardScore, Sample, SampleGroup


def group(group_id: int, rewards: list[float], version: int = 0, task: str = "vqa") -> SampleGroup:
    """A group of completions of different lengths."""
    samples = [
        Sample(
            tuple(range(300 + 20 * i, 304 + 21 * i)), (-2.0,) * (4 + i), "text", "stop", version, RewardScore(r, 1.0, r)
        )
        for i, r in enumerate(rewards)
    ]
    return SampleGroup(Prompt(group_id, scene_example(task, 0, group_id)), tuple(samples))


def learner(encoder: PromptEncoder, model: ModelConfig | None = None, **settings: object) -> GrpoLearner:
    config = LearnerConfig(**{"lr": 1e-3, **settings})  # type: ignore[arg-type]
    folder = resolve_model("tiny")
    return GrpoLearner(model or ModelConfig(), folder, encoder, config, temperature=1.0, total_steps=10, seed=0)


def test_advantages_are_normalised_within_the_group() -> None:
    values = group_advantages([0.0, 1.0, 2.0, 1.0])
    assert values.mean() == pytest.approx(0)
    assert values.std() == pytest.approx(1, abs=1e-4)
    assert not group_advantages([1.3] * 8).any()
    assert np.allclose(group_advantages([10.0, 30.0]), group_advantages([0.1, 0.3]), atol=1e-4)


def test_gradient_on_policy_is_that_of_reinforce() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, 0.0], [-0.5, -1.5, -1.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    advantages = torch.tensor([1.5, -0.5])
    loss = grpo_loss(logprobs, logprobs.detach(), advantages, mask, clip_low=0.2, clip_high=0.2)
    loss.loss.backward()
    expected = torch.tensor([[-0.75, -0.75, 0.0], [1 / 6, 1 / 6, 1 / 6]])
    assert torch.allclose(logprobs.grad, expected)
    assert float(loss.clipped_tokens) == 0


@pytest.mark.parametrize(
    ("shift", "advantage", "flows"), [(0.5, 1.0, False), (-0.5, 1.0, True), (0.5, -1.0, True), (-0.5, -1.0, False)]
)
def test_clip_stops_the_gradient_of_steps_that_went_too_far(shift: float, advantage: float, flows: bool) -> None:
    logprobs = torch.tensor([[-1.0]], requires_grad=True)
    loss = grpo_loss(
        logprobs,
        logprobs.detach() - shift,
        torch.tensor([advantage]),
        torch.tensor([[True]]),
        clip_low=0.2,
        clip_high=0.2,
    )
    loss.loss.backward()
    assert bool(logprobs.grad.abs() > 0) is flows


def test_kl_is_zero_for_equal_policies_and_positive_else() -> None:
    mask = torch.ones(1, 2, dtype=torch.bool)
    same = torch.tensor([[-1.0, -2.0]])
    assert float(kl_penalty(same, same, mask)) == 0
    assert float(kl_penalty(same, same - 0.3, mask)) > 0
    assert float(kl_penalty(same, same + 0.3, mask)) > 0


def test_stale_groups_are_dropped_and_counted() -> None:
    groups = [group(0, [0.0, 1.0], version=4), group(1, [0.0, 1.0], version=3)]
    admitted, counts = admit(groups, version=4, max_staleness=0)
    assert [g.group_id for g in admitted] == [0]
    assert counts == {"admitted": 1, "dropped/stale": 1}
    assert len(admit(groups, version=4, max_staleness=1)[0]) == 2


def test_prompts_run_once_give_the_log_probs_of_whole_sequences(encoder: PromptEncoder) -> None:
    policy = learner(encoder)
    tasks = ("vqa", "temporal_classification", "object_detection")
    prompts = [encoder.encode(scene_example(task, 0, 1)) for task in tasks]
    completions = [[[300, 301, 302], [310, 320, 330, 340, 350]], [[301] * 7], [[302, 305], [306]]]
    batch = CompletionBatch.of(prompts, completions)
    shared = completion_logprobs(policy.model, batch, policy.banned)
    rows = [(p, row) for p, group_rows in zip(prompts, completions, strict=True) for row in group_rows]
    single = CompletionBatch.of([p for p, _ in rows], [[row] for _, row in rows])
    logits = sequence_logits(policy.model, single).index_fill(-1, policy.banned, float("-inf"))
    plain = logits.log_softmax(-1).gather(-1, single.token_ids[..., None]).squeeze(-1)
    assert torch.allclose(shared, torch.where(single.mask, plain, 0.0), atol=1e-4)


def test_special_tokens_have_no_probability(encoder: PromptEncoder) -> None:
    policy = learner(encoder)
    image_token = encoder.processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    end = encoder.processor.tokenizer.eos_token_id
    batch = CompletionBatch.of([encoder.encode(scene_example("vqa", 0, 1))], [[[image_token], [end]]])
    image, finish = completion_logprobs(policy.model, batch, policy.banned)[:, 0].tolist()
    assert image == float("-inf")
    assert finish > float("-inf")


def test_a_step_makes_rewarded_completions_likelier(encoder: PromptEncoder) -> None:
    policy = learner(encoder, lr=1e-5)
    groups = [group(0, [0.0, 2.0]), group(1, [2.0, 0.0], task="object_detection")]
    on_policy = [
        dataclasses.replace(
            g,
            samples=tuple(
                dataclasses.replace(s, logprobs=tuple(map(float, v))) for s, v in zip(g.samples, values, strict=True)
            ),
        )
        for g, values in zip(groups, (policy.logprobs(groups)[:2], policy.logprobs(groups)[2:]), strict=True)
    ]
    before = [values.mean() for values in policy.logprobs(groups)]
    figures = policy.step(on_policy)
    after = [values.mean() for values in policy.logprobs(groups)]
    assert policy.version == 1
    assert figures["loss/kl_to_sampler"] == pytest.approx(0, abs=1e-6)
    gains = np.subtract(after, before)
    assert gains[1] > gains[0]
    assert gains[2] > gains[3]


def test_equal_rewards_change_nothing(encoder: PromptEncoder) -> None:
    policy = learner(encoder)
    before = policy.logprobs([group(0, [1.0, 1.0])])
    policy.step([group(0, [1.0, 1.0])])
    assert all(np.array_equal(a, b) for a, b in zip(before, policy.logprobs([group(0, [1.0, 1.0])]), strict=True))


@pytest.mark.parametrize("model", [ModelConfig(), ModelConfig(lora=LoraSettings(rank=4))])
def test_micro_batches_do_not_change_the_update(encoder: PromptEncoder, model: ModelConfig) -> None:
    groups = [group(i, [0.0, 1.0, 2.0], task=t) for i, t in enumerate(("vqa", "image_captioning", "object_detection"))]
    policies = [learner(encoder, model, groups_per_micro_batch=size) for size in (1, 3)]
    norms = [policy.step(groups)["grad_norm"] for policy in policies]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


@pytest.mark.parametrize("model", [ModelConfig(), ModelConfig(lora=LoraSettings(rank=4))])
def test_a_loaded_learner_goes_on_as_the_saved_one(encoder: PromptEncoder, model: ModelConfig, tmp_path: Path) -> None:
    groups = [group(0, [0.0, 1.0, 2.0]), group(1, [2.0, 0.0, 1.0])]
    first = learner(encoder, model)
    first.step(groups)
    first.save(tmp_path)
    second = learner(encoder, model)
    second.load(tmp_path)
    assert second.version == 1
    assert first.step(groups) == second.step(groups)
    pairs = zip(first.logprobs(groups), second.logprobs(groups), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_kl_with_an_adapter_needs_no_second_model(encoder: PromptEncoder) -> None:
    policy = learner(encoder, ModelConfig(lora=LoraSettings(rank=4)), kl_beta=0.1)
    assert policy.reference is None
    groups = [group(0, [0.0, 1.0, 2.0])]
    assert policy.step(groups)["loss/kl"] == pytest.approx(0, abs=1e-6)
    assert policy.step(groups)["loss/kl"] > 0


def test_temperature_and_seed_reach_the_learner(demo: Config, encoder: PromptEncoder) -> None:
    cold, warm = (
        GrpoLearner(
            ModelConfig(), resolve_model("tiny"), encoder, demo.learner, temperature=t, total_steps=1, seed=0
        ).logprobs([group(0, [0.0, 1.0])])
        for t in (1.0, 2.0)
    )
    assert not np.allclose(cold[0], warm[0])
