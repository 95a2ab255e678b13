"""In-process reward pool."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from geovlm_ray.core.schema import SampleGroup
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.groups import score_groups
from geovlm_ray.rewards.sbert import SbertEmbedder
from geovlm_ray.rewards.score import needs_embedder


class LocalRewards:
    """Scores groups in the calling process; loads SBERT when a task first needs it."""

    def __init__(self, config: RewardConfig) -> None:
        self.config = config
        self._embedder: SbertEmbedder | None = None

    @property
    def embedder(self) -> SbertEmbedder:
        """Sentence-embedding model, loaded on first access."""
        if self._embedder is None:
            self._embedder = SbertEmbedder.from_config(self.config.sbert)
        return self._embedder

    def score_stream(self, parts: Iterable[Sequence[SampleGroup]]) -> list[SampleGroup]:
        """Score all groups; returns them sorted by ``group_id``, with rewards."""
        return self.score(sorted((g for part in parts for g in part), key=lambda g: g.group_id))

    def score(self, groups: Sequence[SampleGroup]) -> list[SampleGroup]:
        """Return the groups with a reward for every sample."""
        tasks = {g.prompt.example.task for g in groups}
        embeds = any(needs_embedder(task, self.config) for task in tasks)
        return score_groups(groups, self.config, self.embedder if embeds else None)

    def close(self) -> None:
        """Do nothing: no worker to shut down."""
