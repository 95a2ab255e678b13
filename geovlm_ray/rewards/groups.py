"""Rewards of sample groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import RewardScore, SampleGroup
from geovlm_ray.rewards.base import Embedder
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.score import score_batch

UNSCORABLE = (DataError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""Exceptions that a malformed record can cause in a reward."""
INVALID = RewardScore(0.0, 0.0, 0.0, status="invalid_record")


def score_groups(groups: Sequence[SampleGroup], config: RewardConfig, embedder: Embedder | None) -> list[SampleGroup]:
    """Return the groups with a reward for every sample.

    A group whose record cannot be scored gets the status ``invalid_record`` and a ``problem``.
    """
    responses = [s.text for g in groups for s in g.samples]
    examples = [g.prompt.example for g in groups for _ in g.samples]
    try:
        scores = iter(score_batch(responses, examples, config, embedder))
    except UNSCORABLE as error:
        if len(groups) > 1:
            return [scored for group in groups for scored in score_groups([group], config, embedder)]
        (group,) = groups
        samples = tuple(replace(sample, reward=INVALID) for sample in group.samples)
        return [replace(group, samples=samples, problem=f"it cannot be scored: {type(error).__name__}: {error}")]
    return [replace(g, samples=tuple(replace(s, reward=next(scores)) for s in g.samples)) for g in groups]
