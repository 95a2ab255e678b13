"""GRPO learner: admission of groups, log-probs of completions, policy updates, checkpoints."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from geovlm_ray.config import Config
from geovlm_ray.core.errors import PartialStepError, RunError
from geovlm_ray.core.pixels import PixelSettings
from geovlm_ray.core.schema import Prompt, RewardScore, Sample, SampleGroup
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.learner.config import LearnerConfig
from geovlm_ray.learner.grpo_learner import GrpoLearner
from geovlm_ray.learner.loss_inputs import Clip, LossInputs, Objective, Surrogate
from geovlm_ray.learner.micro_batches import MicroBatch
from geovlm_ray.learner.objectives import OBJECTIVES
from geovlm_ray.learner.trained_policy import on_device
from geovlm_ray.model import logprobs
from geovlm_ray.model.config import LoraSettings, ModelConfig
from geovlm_ray.model.loading import load_model, model_folder
from geovlm_ray.model.prompts import PromptEncoder
from geovlm_ray.model.rows import Completion, GroupRow
from geovlm_ray.training.batch_metrics import batch_metrics
from geovlm_ray.training.loop import admit
from geovlm_ray.transport.object_store import ObjectStore
from tests.saving import finish_saving
from tests.unit.plain_forward import plain_logprobs


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
        transport=ObjectStore(timeout_s=60),
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
    completions = [
        list(map(Completion, group))
        for group in ([[300, 301, 302], [310, 320, 330, 340, 350]], [[301] * 7], [[302, 305], [306]])
    ]
    full_model = load_model(ModelConfig(), model_folder("tiny"), torch.device("cpu"), 0)
    full = torch.cat(
        [plain_logprobs(full_model, p, c, policy.banned) for p, g in zip(prompts, completions, strict=True) for c in g]
    )
    shared = policy.scores(GroupRow.of(prompts, completions))
    assert_equal_with_gradients(shared, policy.model, full, full_model)


def assert_equal_with_gradients(
    found: torch.Tensor, model: torch.nn.Module, expected: torch.Tensor, expected_model: torch.nn.Module
) -> None:
    """Log-probs [N] by two models are equal, and so are the gradients of the same function of them."""
    assert torch.allclose(found, expected, atol=1e-4)
    for values in (found, expected):
        values.mul(torch.linspace(-1, 1, len(values))).sum().backward()
    parameters = dict(expected_model.named_parameters())
    for name, parameter in model.named_parameters():
        gradient = parameters[name].grad
        if gradient is not None and gradient.norm() > 0:
            assert (parameter.grad - gradient).norm() <= 1e-5 * gradient.norm(), name


def tool_group(encoder: PromptEncoder, rewards: tuple[float, ...] = (0.0, 2.0)) -> SampleGroup:
    """A group whose first sample calls a tool that returns text and an image; the policy wrote 3 + 4 of its tokens."""
    image = encoder.processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    visual = len(encoder.encode_images(("scene:vqa:0:0:0",), PixelSettings()).pixel_values) // 4
    wrote, result, answer = (300, 301, 302), (400, *[image] * visual, 401), (310, 311, 312, 313)
    mask = (True,) * 3 + (False,) * len(result) + (True,) * 4
    tokens = wrote + result + answer
    logprobs = tuple(-2.0 if own else 7.0 for own in mask)
    tool = Sample(
        tokens, logprobs, "text", "stop", 0, RewardScore(rewards[0], 1.0, 0.0), (), mask, ("scene:vqa:0:0:0",)
    )
    plain = Sample((320, 321, 322), (-2.0,) * 3, "text", "stop", 0, RewardScore(rewards[1], 1.0, 1.0))
    return SampleGroup(Prompt(7, scene_example("temporal_classification", 0, 7)), (tool, plain))


def test_masked_tokens_and_later_images_equal_a_plain_forward_pass(encoder: PromptEncoder) -> None:
    policy = learner(encoder)
    groups = [group(0, [0.0, 2.0]), tool_group(encoder)]
    micro = MicroBatch.of(groups, lambda p: encoder.encode(p.example), encoder)
    full_model = load_model(ModelConfig(), model_folder("tiny"), torch.device("cpu"), 0)
    expected = []
    for g in groups:
        prompt = encoder.encode(g.prompt.example)
        for sample in g.samples:
            images = encoder.encode_images(sample.images, PixelSettings()) if sample.images else None
            completion = Completion(sample.token_ids, sample.loss_mask or None, images)
            expected.append(plain_logprobs(full_model, prompt, completion, policy.banned)[completion.mask])
    assert_equal_with_gradients(policy.scores(micro.row), policy.model, torch.cat(expected), full_model)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_masked_tokens_reach_no_objective_penalty_or_metric(encoder: PromptEncoder, objective: str) -> None:
    original = tool_group(encoder)
    first = original.samples[0]
    other = tuple(logprob if own else -50.0 for logprob, own in zip(first.logprobs, first.loss_mask, strict=True))
    changed = dataclasses.replace(original, samples=(dataclasses.replace(first, logprobs=other), *original.samples[1:]))
    settings = {"objective": objective, "kl_beta": 0.1, "old_logprobs": "learner", "overlong_buffer": 16}
    metrics = [learner(encoder, **settings).step([g, group(0, [0.0, 2.0])]) for g in (original, changed)]
    assert metrics[0] == metrics[1]
    assert metrics[0]["learner/tokens"] == 3 + 4 + 3 + 4 + 5
    assert batch_metrics([original], 0)["completion/length_mean"] == (7 + 3) / 2
    assert [len(values) for values in learner(encoder).logprobs([original])] == [7, 3]


def test_loss_registered_from_outside_is_used(encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(tokens: LossInputs, clip: Clip) -> Surrogate:
        grpo = OBJECTIVES["grpo"].surrogate(tokens, clip)
        return dataclasses.replace(grpo, values=2 * grpo.values)

    monkeypatch.setitem(OBJECTIVES, "twice", Objective(twice, "sample_mean"))
    groups = [group(0, [0.0, 2.0])]
    once, doubled = (learner(encoder, objective=name).step(groups) for name in ("grpo", "twice"))
    assert doubled["grad_norm"] == pytest.approx(2 * once["grad_norm"], rel=1e-5)
    assert doubled["loss/policy"] == 2 * once["loss/policy"]


def test_completion_must_end_with_a_token_of_the_policy(encoder: PromptEncoder) -> None:
    with pytest.raises(ValueError, match="end with a token of the policy"):
        GroupRow.of([encoder.encode(scene_example("vqa", 0, 1))], [[Completion([300, 301], [True, False])]])


def test_prefill_is_part_of_the_prompt(encoder: PromptEncoder) -> None:
    example = scene_example("vqa", 0, 1)
    prefill = "<think></think><answer>"
    ids = encoder.processor.tokenizer(prefill)["input_ids"]
    continued = group(1, [0.0, 2.0])
    continued = dataclasses.replace(continued, prompt=Prompt(1, example, prefill))
    whole = encoder.encode(example, prefill).input_ids
    assert whole[-len(ids) :].tolist() == ids
    full_model = load_model(ModelConfig(), model_folder("tiny"), torch.device("cpu"), 0)
    policy = learner(encoder)
    for sample, found in zip(continued.samples, policy.logprobs([continued]), strict=True):
        expected = plain_logprobs(
            full_model, encoder.encode(example, prefill), Completion(sample.token_ids), policy.banned
        )
        assert np.allclose(found, expected.detach().numpy(), atol=1e-4)


def test_upcoming_prompts_are_encoded_once_during_the_step(
    encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, encoded = learner(encoder), []
    original = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda e, prefill="": encoded.append(e.id) or original(e, prefill))
    first, second = [group(0, [0.0, 2.0])], [group(1, [2.0, 0.0])]
    metrics = policy.step(first, [g.prompt for g in second])
    policy.logprobs(second)
    assert encoded == [g.prompt.example.id for g in (*first, *second)]
    assert metrics == learner(encoder).step(first)


def test_chunked_logits_do_not_change_the_log_probs(encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = learner(encoder)
    completions = [Completion([300, 301, 302]), Completion([310] * 9)]
    row = GroupRow.of([encoder.encode(scene_example("vqa", 0, 1))], [completions])
    unchunked = policy.scores(row)
    monkeypatch.setattr(logprobs, "MAX_LOGITS", 5 * policy.model.lm_head.out_features)
    assert torch.allclose(policy.scores(row), unchunked, atol=1e-5)


def test_truncated_importance_sampling_with_old_log_probs_of_the_learner(encoder: PromptEncoder) -> None:
    groups = [group(0, [0.0, 2.0])]
    policy = learner(encoder, old_logprobs="learner", importance_high=1.0)
    metrics = policy.step(groups)
    # The rollout log-probs are -2; every token with a higher log-prob under the learner is truncated.
    truncated = sum(float((values > -2).sum()) for values in learner(encoder).logprobs(groups))
    assert metrics["loss/importance_out_of_bounds"] == pytest.approx(truncated / metrics["learner/tokens"])
    assert metrics["loss/clipped_low"] == metrics["loss/clipped_high"] == 0


def test_special_tokens_have_zero_probability(encoder: PromptEncoder) -> None:
    policy = learner(encoder)
    image_token = encoder.processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    end = encoder.processor.tokenizer.eos_token_id
    completions = [Completion([image_token]), Completion([end])]
    row = GroupRow.of([encoder.encode(scene_example("vqa", 0, 1))], [completions])
    image, finish = policy.scores(row).tolist()
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


@pytest.mark.parametrize(
    "model", [ModelConfig(), ModelConfig(lora=LoraSettings(rank=4)), ModelConfig(freeze_vision=True)]
)
def test_loaded_learner_continues_exactly_as_the_saved_one(
    encoder: PromptEncoder, model: ModelConfig, tmp_path: Path
) -> None:
    groups = [group(0, [0.0, 1.0, 2.0]), group(1, [2.0, 0.0, 1.0])]
    saved = learner(encoder, model)
    saved.step(groups)
    saved.save(tmp_path)
    # The checkpoint holds the state at the call of save, although training continues during the write.
    expected = saved.step(groups)
    finish_saving(saved)
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


@pytest.mark.parametrize(("bad", "error"), [(0, RunError), (1, PartialStepError)])
def test_non_finite_gradient_ends_the_run_and_names_the_records(
    encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch, bad: int, error: type[Exception]
) -> None:
    trained = learner(encoder, mini_batches=2)
    clip = trained.clip_gradient
    norms = [{"grad_norm": float("nan")} if i == bad else {} for i in range(2)]
    monkeypatch.setattr(trained, "clip_gradient", lambda limit: clip(limit) | norms.pop(0))
    groups = [group(0, [0.0, 1.0]), group(1, [0.0, 1.0])]
    with pytest.raises(error, match=f"step 1: expected a finite.*nan.*{groups[bad].prompt.example.id!r}") as found:
        trained.step(groups)
    assert type(found.value) is error
    assert all(parameter.grad is None for parameter in trained.trained.values())


def test_any_error_after_the_first_update_of_a_step_says_that_the_weights_are_of_no_step(
    encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = learner(encoder, mini_batches=2)
    backward, updates = trained.backward, trained.update
    seen: list[str] = []
    monkeypatch.setattr(trained, "update", lambda: (seen.append("update"), updates()))

    def out_of_memory(*arguments: object) -> None:
        if seen:
            raise torch.OutOfMemoryError("CUDA out of memory")
        backward(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(trained, "backward", out_of_memory)
    with pytest.raises(PartialStepError, match="CUDA out of memory"):
        trained.step([group(0, [0.0, 1.0]), group(1, [0.0, 1.0])])


def test_optimizer_state_is_put_on_the_device_of_its_parameter() -> None:
    state = on_device({"step": torch.tensor(3.0), "lr": 0.1}, torch.device("meta"))
    assert (state["step"].device.type, state["lr"]) == ("meta", 0.1)


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
            transport=ObjectStore(timeout_s=60),
        ).logprobs([group(0, [0.0, 1.0])])
        for t in (1.0, 2.0)
    )
    assert not np.allclose(cold[0], warm[0])
