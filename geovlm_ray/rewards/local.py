"""Rewards of groups in this process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from geovlm_ray.core.schema import SampleGroup
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.groups import score_groups
from geovlm_ray.rewards.sbert import SbertEmbedder
from geovlm_ray.rewards.score import needs_embedder


class LocalRewards:
    """Scores in this process; SBERT is loaded when a task first needs it."""

    def __init__(self, config: RewardConfig) -> None:
        self.config = config
        self._embedder: SbertEmbedder | None = None

    @property
    def embedder(self) -> SbertEmbedder:
        """The sentence embeddings."""
        if self._embedder is None:
            self._embedder = SbertEmbedder.from_config(self.config.sbert)
        return self._embedder

    def score_stream(self, parts: Iterable[Sequence[SampleGroup]]) -> list[SampleGroup]:
        """All groups, sorted, every sample with its reward."""
        return self.score(sorted((g for part in parts for g in part), key=lambda g: g.group_id))

    def score(self, groups: Sequence[SampleGroup]) -> list[SampleGroup]:
        """The same groups, every sample with its reward."""
        tasks = {g.prompt.example.task for g in groups}
        needed = any(needs_embedder(task, self.config) for task in tasks)
        return score_groups(groups, self.config, self.embedder if needed else None)

    def close(self) -> None:
        """Nothing to end."""
