"""In-process reward pool."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from geovlm_ray.core.schema import Example, RewardScore, SampleGroup
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.groups import score_groups
from geovlm_ray.rewards.sbert import SbertEmbedder
from geovlm_ray.rewards.score import needs_embedder, score_batch


class LocalRewards:
    """Scores groups in the calling process; loads SBERT when a task first needs it."""

    def __init__(self, config: RewardConfig) -> None:
        self.config = config

    @cached_property
    def embedder(self) -> SbertEmbedder:
        """Sentence-embedding model, loaded on first access."""
        return SbertEmbedder.from_config(self.config.sbert)

    def score_batch(self, responses: Sequence[str], examples: Sequence[Example]) -> list[RewardScore]:
        """The reward of each response, as `geovlm_ray.rewards.score.score_batch` returns it."""
        return score_batch(responses, examples, self.config, self._embedder_for(examples))

    def score_stream(self, parts: Iterable[Sequence[SampleGroup]]) -> list[SampleGroup]:
        """Score all groups; returns them sorted by ``group_id``, with rewards."""
        return self.score(sorted((g for part in parts for g in part), key=lambda g: g.group_id))

    def score(self, groups: Sequence[SampleGroup]) -> list[SampleGroup]:
        """Return the groups with a reward for every sample."""
        return score_groups(groups, self.config, self._embedder_for([g.prompt.example for g in groups]))

    def close(self) -> None:
        """Do nothing: no worker to shut down."""

    def _embedder_for(self, examples: Sequence[Example]) -> SbertEmbedder | None:
        tasks = {example.task for example in examples}
        return self.embedder if any(needs_embedder(task, self.config) for task in tasks) else None
