"""The learner as actors: one, or several that share the weights and the batch."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray

from actors.failures import fetch
from actors.watched import call, holds, watch
from geovlm_ray.config import Config
from geovlm_ray.grpo.ranks import Ranks
from geovlm_ray.local import make_learner
from geovlm_ray.pulse import PULSE
from geovlm_ray.schema import SampleGroup
from geovlm_ray.sync.buckets import WeightBucket, packed_ahead


class LearnerActor:
    """One learner, or one rank of it."""

    def address(self) -> str:
        """Where the other ranks can meet this one: its node's address, and a port that was free."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def start(self, config: Config, model: Path, rank: int, size: int, address: str) -> None:
        """Meet the other ranks and load the model."""
        watch(config.run)
        with call("start"):
            self.learner = make_learner(config, model, Ranks.join(rank, size, address))
        holds(self.learner.version)

    def step(self, groups: Sequence[SampleGroup]) -> dict[str, float]:
        """One update."""
        with call("step", len(groups)):
            metrics = self.learner.step(groups)
        PULSE.count(metrics["learner/tokens"])
        holds(self.learner.version)
        return metrics

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        """Log-probs of every sample's tokens."""
        with call("logprobs", len(groups)):
            return self.learner.logprobs(groups)

    def weights(self) -> Iterator[WeightBucket]:
        """The present weights, a part at a time."""
        with call("weights"):
            yield from packed_ahead(self.learner.weights())

    def save(self, folder: Path) -> None:
        """Write model and optimizer."""
        with call("save"):
            self.learner.save(folder)

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote."""
        with call("load"):
            self.learner.load(folder)
        holds(self.learner.version)


class RayLearner:
    """The learner actors as the loop sees them: as one learner."""

    def __init__(self, config: Config, model: Path) -> None:
        size = config.learner.actors
        options = {"num_cpus": config.learner.num_cpus, "num_gpus": config.learner.num_gpus}
        self.actors = [
            ray.remote(LearnerActor).options(**options, name=f"{config.run.name}-learner-{rank}").remote()
            for rank in range(size)
        ]
        address = fetch([self.actors[0].address.remote()], "the learner")[0]
        self._started = [actor.start.remote(config, model, i, size, address) for i, actor in enumerate(self.actors)]

    def step(self, groups: Sequence[SampleGroup]) -> dict[str, float]:
        """One update."""
        return self._all("step", ray.put(groups))

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        """Log-probs of every sample's tokens."""
        return self._all("logprobs", ray.put(groups))

    def weights(self) -> Iterator[ray.ObjectRef]:
        """The present weights, a part at a time left in the object store for the engines to read."""
        fetch(self._started, "the learner")
        # All ranks give what they hold of each weight; the first one has the whole, and sends it.
        for parts in [actor.weights.options(num_returns="streaming").remote() for actor in self.actors]:
            yield from parts

    def save(self, folder: Path) -> None:
        """Write model and optimizer into a folder that this process sees too."""
        self._all("save", folder)

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote."""
        self._all("load", folder)

    def _all(self, method: str, argument: Any) -> Any:
        """What the first rank returns of a call that all make together."""
        fetch(self._started, "the learner")
        return fetch([getattr(actor, method).remote(argument) for actor in self.actors], "the learner")[0]
