"""GRPO learner: admission of groups, log-probs of completions, policy updates, checkpoints."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from geovlm_ray.config import Config
from geovlm_ray.core.schema import Prompt, RewardScore, Sample, SampleGroup
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.learner.config import LearnerConfig
from geovlm_ray.learner.grpo_learner import GrpoLearner
from geovlm_ray.model import shared_prefix
from geovlm_ray.model.config import LoraSettings, ModelConfig
from geovlm_ray.model.forward import Pack, packed_logits
from geovlm_ray.model.loading import load_model, model_folder
from geovlm_ray.model.prompts import PromptEncoder
from geovlm_ray.model.shared_prefix import GroupRow, row_logprobs
from geovlm_ray.training.admission import admit


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
    folder = model_folder("tiny")
    return GrpoLearner(
        model or ModelConfig(),
        folder,
        encoder,
        config,
        temperature=1.0,
        max_completion_tokens=64,
        total_steps=10,
        seed=0,
    )


def test_stale_groups_are_dropped_and_reported() -> None:
    groups = [group(0, [0.0, 1.0], version=4), group(1, [0.0, 1.0], version=3)]
    groups_by_status = admit(groups, version=4, max_staleness=0)
    assert {status: [g.group_id for g in admitted] for status, admitted in groups_by_status.items()} == {
        "trained": [0],
        "stale": [1],
    }
    assert len(admit(groups, version=4, max_staleness=1)["trained"]) == 2


def test_shared_prefix_log_probs_and_gradients_equal_those_of_full_sequences(encoder: PromptEncoder) -> None:
    policy = learner(encoder)
    tasks = ("vqa", "temporal_classification", "object_detection")
    prompts = [encoder.encode(scene_example(task, 0, 1)) for task in tasks]
    completions = [[[300, 301, 302], [310, 320, 330, 340, 350]], [[301] * 7], [[302, 305], [306]]]
    full_model = load_model(ModelConfig(), model_folder("tiny"), torch.device("cpu"), 0)
    pack = Pack.of([(p, row) for p, rows in zip(prompts, completions, strict=True) for row in rows])
    logits = packed_logits(full_model, pack).index_fill(-1, policy.banned, float("-inf"))
    full = logits.log_softmax(-1).gather(-1, pack.targets[:, None]).squeeze(-1)
    shared = row_logprobs(policy.model, GroupRow.of(prompts, completions), policy.banned)
    assert torch.allclose(shared, full, atol=1e-4)
    for logprobs in (full, shared):
        logprobs.mul(torch.linspace(-1, 1, len(logprobs))).sum().backward()
    expected = dict(full_model.named_parameters())
    for name, parameter in policy.model.named_parameters():
        gradient = expected[name].grad
        if gradient is not None and gradient.norm() > 0:
            assert (parameter.grad - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_chunked_logits_do_not_change_the_log_probs(encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = learner(encoder)
    row = GroupRow.of([encoder.encode(scene_example("vqa", 0, 1))], [[[300, 301, 302], [310] * 9]])
    unchunked = row_logprobs(policy.model, row, policy.banned)
    monkeypatch.setattr(shared_prefix, "MAX_LOGITS", 5 * policy.model.lm_head.out_features)
    assert torch.allclose(row_logprobs(policy.model, row, policy.banned), unchunked, atol=1e-5)


def test_truncated_importance_sampling_with_old_log_probs_of_the_learner(encoder: PromptEncoder) -> None:
    groups = [group(0, [0.0, 2.0])]
    policy = learner(encoder, old_logprobs="learner", tis_cap=1.0)
    metrics = policy.step(groups)
    # The rollout log-probs are -2; every token with a higher log-prob under the learner is truncated.
    truncated = sum(float((values > -2).sum()) for values in learner(encoder).logprobs(groups))
    assert metrics["loss/truncated_fraction"] == pytest.approx(truncated / metrics["learner/tokens"])
    assert metrics["loss/clipped_fraction"] == 0


def test_special_tokens_have_zero_probability(encoder: PromptEncoder) -> None:
    policy = learner(encoder)
    image_token = encoder.processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    end = encoder.processor.tokenizer.eos_token_id
    row = GroupRow.of([encoder.encode(scene_example("vqa", 0, 1))], [[[image_token], [end]]])
    image, finish = row_logprobs(policy.model, row, policy.banned).tolist()
    assert image == float("-inf")
    assert finish > float("-inf")


def test_step_increases_log_probs_of_rewarded_completions(encoder: PromptEncoder) -> None:
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
    metrics = policy.step(on_policy)
    after = [values.mean() for values in policy.logprobs(groups)]
    assert policy.version == 1
    assert metrics["loss/kl_to_sampler"] == pytest.approx(0, abs=1e-6)
    gains = np.subtract(after, before)
    assert gains[1] > gains[0]
    assert gains[2] > gains[3]


def test_equal_rewards_do_not_change_the_policy(encoder: PromptEncoder) -> None:
    policy = learner(encoder)
    before = policy.logprobs([group(0, [1.0, 1.0])])
    policy.step([group(0, [1.0, 1.0])])
    assert all(np.array_equal(a, b) for a, b in zip(before, policy.logprobs([group(0, [1.0, 1.0])]), strict=True))


@pytest.mark.parametrize("model", [ModelConfig(), ModelConfig(lora=LoraSettings(rank=4))])
def test_micro_batches_do_not_change_the_update(encoder: PromptEncoder, model: ModelConfig) -> None:
    groups = [group(i, [0.0, 1.0, 2.0], task=t) for i, t in enumerate(("vqa", "image_captioning", "object_detection"))]
    policies = [learner(encoder, model, tokens_per_micro_batch=size) for size in (1, 10_000)]
    norms = [policy.step(groups)["grad_norm"] for policy in policies]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


@pytest.mark.parametrize("model", [ModelConfig(), ModelConfig(lora=LoraSettings(rank=4))])
def test_loaded_learner_continues_exactly_as_the_saved_one(
    encoder: PromptEncoder, model: ModelConfig, tmp_path: Path
) -> None:
    groups = [group(0, [0.0, 1.0, 2.0]), group(1, [2.0, 0.0, 1.0])]
    saved = learner(encoder, model)
    saved.step(groups)
    saved.save(tmp_path)
    # The checkpoint holds the state at the call of save, although training continues during the write.
    expected = saved.step(groups)
    while not saved.saved():
        time.sleep(0.01)
    loaded = learner(encoder, model)
    loaded.load(tmp_path)
    assert loaded.version == 1
    assert loaded.step(groups) == expected
    pairs = zip(saved.logprobs(groups), loaded.logprobs(groups), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_kl_with_an_adapter_needs_no_reference_model(encoder: PromptEncoder) -> None:
    policy = learner(encoder, ModelConfig(lora=LoraSettings(rank=4)), kl_beta=0.1)
    assert policy.reference is None
    groups = [group(0, [0.0, 1.0, 2.0])]
    assert policy.step(groups)["loss/kl"] == pytest.approx(0, abs=1e-6)
    assert policy.step(groups)["loss/kl"] > 0


def test_temperature_and_seed_reach_the_learner(demo: Config, encoder: PromptEncoder) -> None:
    cold, warm = (
        GrpoLearner(
            ModelConfig(),
            model_folder("tiny"),
            encoder,
            demo.learner,
            temperature=t,
            max_completion_tokens=64,
            total_steps=1,
            seed=0,
        ).logprobs([group(0, [0.0, 1.0])])
        for t in (1.0, 2.0)
    )
    assert not np.allclose(cold[0], warm[0])
