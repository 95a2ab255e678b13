"""Streaming rollouts: groups are returned as they finish, weights are updated in flight, bad prompts are named."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from vllm.lora.worker_manager import WorkerLoRAManager

from geovlm_ray.config import load_config
from geovlm_ray.core.schema import SampleGroup
from geovlm_ray.data.sampler import PromptSampler, SceneStream
from geovlm_ray.model.loading import model_folder
from geovlm_ray.rewards.local import LocalRewards
from geovlm_ray.training.local import LocalRollouts, make_engine, make_learner

pytestmark = pytest.mark.slow


def logprob_differences(learner_logprobs: list[np.ndarray], groups: list[SampleGroup]) -> list[np.ndarray]:
    samples = [s for g in groups for s in g.samples]
    return [np.abs(values - np.array(s.logprobs)) for values, s in zip(learner_logprobs, samples, strict=True)]


@pytest.mark.parametrize("lora", [pytest.param("null", marks=pytest.mark.long), "{rank: 8}"])
def test_in_flight_completions_continue_with_new_weights_and_record_the_update(
    lora: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load = WorkerLoRAManager._load_adapter
    monkeypatch.setattr(
        WorkerLoRAManager, "_load_adapter", lambda self, r: (loads.append(r.lora_name), load(self, r))[1]
    )
    config = load_config("demo", ["learner.lr=1e-3", "learner.warmup_steps=0", f"model.lora={lora}"])
    model = model_folder("tiny")
    engine, learner = make_engine(config, model), make_learner(config, model)
    sampler = PromptSampler(SceneStream(0), config.data, 16)
    rollouts = LocalRollouts(engine)
    rollouts.update_weights(learner.weights)
    scored = LocalRewards(config.reward).score(engine.generate(sampler.batch(0)))
    stream = engine.stream(sampler.batch(1))
    groups = list(next(stream))
    assert 0 < len(groups) < 16, "groups were not returned as they finished"
    assert not any(s.weight_updates for g in groups for s in g.samples)
    new_logprobs = learner.logprobs
    old_learner = make_learner(config, model)
    learner.step(scored)
    rollouts.update_weights(learner.weights)
    assert engine.version == 1
    groups += [group for part in stream for group in part]
    assert sorted(g.group_id for g in groups) == list(range(16, 32))
    updated = [s for g in groups for s in g.samples if s.weight_updates]
    assert updated
    for difference, sample in zip(
        logprob_differences(old_learner.logprobs(groups), groups), (s for g in groups for s in g.samples), strict=True
    ):
        (switch, version) = sample.weight_updates[0] if sample.weight_updates else (len(sample.token_ids), 1)
        assert (sample.weight_version, version) == (0, 1)
        assert difference[:switch].max(initial=0) < 1e-3, "tokens before the update do not match the old weights"
    # New completions use the new weights only, also for prompts seen before.
    fresh = engine.generate(sampler.batch(1))
    assert max(d.max() for d in logprob_differences(new_logprobs(fresh), fresh)) < 1e-3
    assert {s.weight_version for g in fresh for s in g.samples} == {1}
    assert loads == ([] if lora == "null" else ["version-0", "version-1"]), "the adapter is loaded once per version"


def test_engine_generates_after_an_older_one_of_the_process_is_collected() -> None:
    config, model = load_config("demo"), model_folder("tiny")
    older = make_engine(config, model)
    engine = make_engine(config, model)
    del older
    gc.unfreeze()
    gc.collect()
    assert engine.generate(PromptSampler(SceneStream(0), config.data, 2).batch(0), group_size=1)


def test_prompt_that_cannot_be_shown_gives_a_group_with_the_problem(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    config = load_config("demo", ["rollout.max_model_len=512"])
    engine = make_engine(config, model_folder("tiny"))
    good = PromptSampler(SceneStream(0), config.data, 4).batch(0)
    changes = ({"images": (str(tmp_path / "broken.png"),)}, {"question": "word " * 600}, {"question": "<|image_pad|>"})
    bad = [
        replace(good[0], group_id=10 + k, example=replace(good[0].example, **change))  # type: ignore[arg-type]
        for k, change in enumerate(changes)
    ]
    groups = engine.generate([bad[0], *good[:2], bad[1], *good[2:], bad[2]])
    assert [group.group_id for group in groups] == [10, 0, 1, 11, 2, 3, 12]
    problems = [group.problem for group in groups if group.problem]
    for found, expected in zip(
        problems, ("broken.png: expected a decodable image", "max_model_len=512", "placeholders"), strict=True
    ):
        assert expected in found
    assert [len(group.samples) for group in groups] == [0 if g.problem else config.rollout.group_size for g in groups]
