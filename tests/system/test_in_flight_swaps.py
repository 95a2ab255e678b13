"""Weights that arrive while prompts with images are being prefilled in chunks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from geovlm_ray.config import load_config
from geovlm_ray.core.schema import Prompt
from geovlm_ray.data.sampler import PromptSampler, SceneStream
from geovlm_ray.model.loading import model_folder
from geovlm_ray.rollout import vllm_compat
from geovlm_ray.rollout.engine import Engine
from geovlm_ray.training.local import make_engine, make_learner
from tests.system.random_weights import RandomWeights

pytestmark = pytest.mark.slow
CHUNK = 16
"""Tokens per engine step; a prompt has about 30, 16 of them of its image."""


@pytest.fixture
def chunked_prefill(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = vllm_compat.backend_args
    monkeypatch.setattr(
        vllm_compat, "backend_args", lambda *a: {**arguments(*a), "max_num_batched_tokens": CHUNK, "max_num_seqs": 8}
    )


def add(engine: Engine, prompts: list[Prompt], keys: Iterator[int]) -> list[str]:
    """Add prompts to the engine without waiting for their completions."""
    added = []
    for prompt, params in zip(prompts, engine.seeded(prompts, engine.sampling()), strict=True):
        added.append(f"added-{next(keys)}")
        engine._add(added[-1], engine._prepare(prompt, params))
    return added


@pytest.mark.usefixtures("chunked_prefill")
@pytest.mark.parametrize(
    ("lora", "swaps"),
    [("null", 20), ("{rank: 24}", 10), pytest.param("null", 200, marks=pytest.mark.long)],
)
def test_swaps_between_chunks_of_prefills_keep_parity(lora: str, swaps: int) -> None:
    config = load_config("demo", [f"model.lora={lora}", "rollout.group_size=2", "rollout.max_tokens=12"])
    model = model_folder("tiny")
    engine, weights = make_engine(config, model), RandomWeights(make_learner(config, model))
    sampler, keys, rng = PromptSampler(SceneStream(0), config.data, 3), itertools.count(), np.random.default_rng(0)
    restarted, groups, pending = 0, [], []
    for version in range(1, swaps + 1):
        *prompts, probe = sampler.batch(version)
        pending += add(engine, prompts, keys)
        for _ in range(rng.integers(1, 5)):
            engine._step()
        between_chunks = vllm_compat.partly_prefilled(engine.llm)
        weights.send(engine, version)
        assert all(engine._requests[key].version == version for key in between_chunks), "not restarted"
        restarted += len(between_chunks)
        fresh = engine.generate([probe])
        assert {s.weight_version for g in fresh for s in g.samples} == {version}
        assert weights.max_error(fresh) < 1e-3
        groups += [engine._group(key) for key in pending if key in engine._finished]
        pending = [key for key in pending if key in engine._requests]
    while pending:
        engine._step()
        groups += [engine._group(key) for key in pending if key in engine._finished]
        pending = [key for key in pending if key in engine._requests]
    assert len(groups) == 2 * swaps
    assert restarted > swaps // 4
    assert any(s.weight_updates for g in groups for s in g.samples)
    for version in sorted({s.weight_version for g in groups for s in g.samples}):
        weights.set_version(version)
        assert weights.max_error([g for g in groups if g.samples[0].weight_version == version]) < 1e-3
