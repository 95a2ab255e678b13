"""Engines that give their GPU memory back while the learner trains; without a GPU, they only change their state."""

from __future__ import annotations

from typing import Any

import pytest

from geovlm_ray.config import load_config
from geovlm_ray.core.errors import RunError
from geovlm_ray.data.sampler import PromptSampler, SceneStream
from geovlm_ray.model.loading import model_folder
from geovlm_ray.rollout import vllm_compat
from geovlm_ray.training.local import LocalRollouts, make_engine, make_learner
from tests.system.random_weights import RandomWeights

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("lora", "level"), [("null", 2), ("{rank: 4}", 1), ("{rank: 4, targets: all}", 1)])
def test_engine_wakes_up_for_weights_then_for_the_cache(lora: str, level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    for name in ("sleep", "load_weights", "wake_up"):
        function = getattr(vllm_compat, name)
        monkeypatch.setattr(
            vllm_compat,
            name,
            lambda llm, what, name=name, function=function: (calls.append((name, what)), function(llm, what))[1],
        )
    config = load_config(
        "demo", ["placement.colocate=true", "loop.max_staleness=0", f"model.lora={lora}", "rollout.max_tokens=8"]
    )
    engine = make_engine(config, model_folder("tiny"))
    weights = RandomWeights(make_learner(config, model_folder("tiny")))
    rollouts = LocalRollouts(engine)
    prompts = PromptSampler(SceneStream(0), config.data, 3).batch(0)
    for version in (1, 2):
        engine._add("running", engine._prepare(prompts[0], engine.sampling()))
        with pytest.raises(RunError, match="told to sleep while it samples"):
            rollouts.sleep()
        engine._abort(["running"])
        rollouts.sleep()
        with pytest.raises(RunError, match="sleeps was given a prompt"):
            rollouts.generate(prompts)
        weights.set_version(version)
        rollouts.update_weights(weights.learner.weights)
        assert weights.max_error(rollouts.generate(prompts, group_size=2)) < 1e-3
    states = [call for call in calls if call[0] != "load_weights"]
    assert states == [("sleep", level), ("wake_up", "weights"), ("wake_up", "kv_cache")] * 2
    if lora != "{rank: 4}":
        assert [name for name, _ in calls] == ["sleep", "wake_up", "load_weights", "wake_up"] * 2
