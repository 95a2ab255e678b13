"""The reward pool: CPU actors that score in parallel, and one that embeds texts for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import ray

from actors.failures import fetch
from geovlm_ray.config import Config
from geovlm_ray.local import score_groups
from geovlm_ray.rewards import Embedder, RewardConfig, needs_embedder
from geovlm_ray.rewards.config import SbertConfig
from geovlm_ray.rewards.sbert import SbertEmbedder
from geovlm_ray.schema import SampleGroup


class SbertActor:
    """Sentence embeddings, on a GPU where one is given."""

    def __init__(self, config: SbertConfig) -> None:
        self.embedder = SbertEmbedder.from_config(config)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of texts, [n, d] fp32."""
        return self.embedder.encode(texts)


class RemoteEmbedder:
    """The SBERT actor as an `Embedder`."""

    def __init__(self, actor: ray.actor.ActorHandle) -> None:
        self.actor = actor

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of texts, [n, d] fp32."""
        return fetch([self.actor.encode.remote(list(texts))], "the SBERT actor")[0]


class RewardActor:
    """Scores whole groups."""

    def __init__(self, config: RewardConfig, sbert: ray.actor.ActorHandle | None) -> None:
        self.config = config
        self.embedder: Embedder | None = RemoteEmbedder(sbert) if sbert is not None else None

    def score(self, groups: Sequence[SampleGroup]) -> list[SampleGroup]:
        """The same groups, every sample with its reward."""
        return score_groups(groups, self.config, self.embedder)


class RayRewards:
    """All reward actors as one pool; groups are dealt out by task, so that every actor gets a share of each."""

    def __init__(self, config: Config, tasks: Sequence[str]) -> None:
        resources = config.reward_actors
        self.sbert = None
        if any(needs_embedder(task, config.reward) for task in tasks):
            options = {"num_cpus": resources.sbert_num_cpus, "num_gpus": resources.sbert_num_gpus}
            sbert = config.reward.sbert
            if resources.sbert_num_gpus:
                sbert = sbert.model_copy(update={"device": "cuda"})
            self.sbert = ray.remote(SbertActor).options(**options, name=f"{config.run.name}-sbert").remote(sbert)
        self.actors = [
            ray.remote(RewardActor)
            .options(num_cpus=resources.num_cpus, name=f"{config.run.name}-reward-{i}")
            .remote(config.reward, self.sbert)
            for i in range(resources.actors)
        ]

    def score(self, groups: Sequence[SampleGroup]) -> list[SampleGroup]:
        """The same groups in the same order, every sample with its reward."""
        n = len(self.actors)
        by_task = sorted(range(len(groups)), key=lambda i: (groups[i].prompt.example.task, i))
        calls = [a.score.remote([groups[i] for i in by_task[k::n]]) for k, a in enumerate(self.actors)]
        scored = {g.group_id: g for part in fetch(calls, "a reward actor") for g in part}
        return [scored[g.group_id] for g in groups]

    def close(self) -> None:
        """End the actors."""
        for actor in [*self.actors, *([self.sbert] if self.sbert is not None else [])]:
            ray.kill(actor)
