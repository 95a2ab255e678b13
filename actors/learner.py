"""The learner as an actor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import ray

from actors.failures import fetch
from geovlm_ray.config import Config
from geovlm_ray.local import make_learner
from geovlm_ray.schema import SampleGroup
from geovlm_ray.sync.buckets import WeightBucket


class LearnerActor:
    """One learner."""

    def __init__(self, config: Config, model: Path) -> None:
        self.learner = make_learner(config, model)

    def step(self, groups: Sequence[SampleGroup]) -> dict[str, float]:
        """One update."""
        return self.learner.step(groups)

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        """Log-probs of every sample's tokens."""
        return self.learner.logprobs(groups)

    def weights(self) -> Iterator[WeightBucket]:
        """The present weights, a part at a time."""
        yield from self.learner.weights()

    def save(self, folder: Path) -> None:
        """Write model and optimizer."""
        self.learner.save(folder)

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote."""
        self.learner.load(folder)


class RayLearner:
    """The learner actor as the loop sees it."""

    def __init__(self, config: Config, model: Path) -> None:
        options = {"num_cpus": config.learner.num_cpus, "num_gpus": config.learner.num_gpus}
        self.actor = (
            ray.remote(LearnerActor).options(**options, name=f"{config.run.name}-learner").remote(config, model)
        )

    def step(self, groups: Sequence[SampleGroup]) -> dict[str, float]:
        """One update."""
        return fetch([self.actor.step.remote(groups)], "the learner")[0]

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        """Log-probs of every sample's tokens."""
        return fetch([self.actor.logprobs.remote(groups)], "the learner")[0]

    def weights(self) -> ray.ObjectRefGenerator:
        """The present weights, a part at a time left in the object store for the engines to read."""
        return self.actor.weights.options(num_returns="streaming").remote()

    def save(self, folder: Path) -> None:
        """Write model and optimizer into a folder that this process sees too."""
        fetch([self.actor.save.remote(folder)], "the learner")

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote."""
        fetch([self.actor.load.remote(folder)], "the learner")
