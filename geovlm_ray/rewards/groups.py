"""Rewards of sample groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from geovlm_ray.core.schema import SampleGroup
from geovlm_ray.rewards.base import Embedder
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.score import score_batch


def score_groups(groups: Sequence[SampleGroup], config: RewardConfig, embedder: Embedder | None) -> list[SampleGroup]:
    """Return the groups with a reward for every sample."""
    responses = [s.text for g in groups for s in g.samples]
    examples = [g.prompt.example for g in groups for _ in g.samples]
    scores = iter(score_batch(responses, examples, config, embedder))
    return [
        dataclasses.replace(g, samples=tuple(dataclasses.replace(s, reward=next(scores)) for s in g.samples))
        for g in groups
    ]
