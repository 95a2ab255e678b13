"""Rollout actors: each one vLLM engine on its share of the machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from actors.failures import fetch
from geovlm_ray.config import Config
from geovlm_ray.local import make_engine
from geovlm_ray.schema import Prompt, SampleGroup
from geovlm_ray.sync.update import WeightUpdate


class RolloutActor:
    """One engine."""

    def __init__(self, config: Config, model: Path) -> None:
        self.engine = make_engine(config, model)

    def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
        """Draw completions of each prompt."""
        return self.engine.generate(prompts, **sampling)

    def update_weights(self, update: WeightUpdate) -> int:
        """Take a version of the weights and acknowledge it by its number."""
        return self.engine.update_weights(update)


class RayRollouts:
    """All rollout actors as one pool; a batch is dealt out in turn, one call an actor."""

    def __init__(self, config: Config, model: Path) -> None:
        options = {"num_cpus": config.rollout.num_cpus, "num_gpus": config.rollout.num_gpus}
        self.actors = [
            ray.remote(RolloutActor).options(**options, name=f"{config.run.name}-rollout-{i}").remote(config, model)
            for i in range(config.rollout.actors)
        ]
        self._submitted: deque[list[ray.ObjectRef]] = deque()

    def submit(self, prompts: Sequence[Prompt]) -> None:
        """Start to draw a batch; the actors draw batches and take weights in the order of the calls."""
        self._submitted.append(self._deal(prompts))

    def collect(self) -> list[SampleGroup]:
        """The oldest submitted batch, sorted by group."""
        return _merge(self._submitted.popleft())

    def generate(self, prompts: Sequence[Prompt], *, greedy: bool) -> list[SampleGroup]:
        """One completion of each prompt."""
        return _merge(self._deal(prompts, group_size=1, greedy=greedy))

    def probe(self, prompts: Sequence[Prompt], max_tokens: int) -> list[list[SampleGroup]]:
        """The same short draws from every engine."""
        calls = [a.generate.remote(prompts, group_size=1, max_tokens=max_tokens) for a in self.actors]
        return fetch(calls, "a rollout actor")

    def update_weights(self, update: ray.ObjectRef) -> None:
        """Send a version to every engine; the object store holds it once a node."""
        fetch([actor.update_weights.remote(update) for actor in self.actors], "a rollout actor")

    def close(self) -> None:
        """End the actors."""
        for actor in self.actors:
            ray.kill(actor)

    def _deal(self, prompts: Sequence[Prompt], **sampling: Any) -> list[ray.ObjectRef]:
        n = len(self.actors)
        return [a.generate.remote(prompts[i::n], **sampling) for i, a in enumerate(self.actors) if prompts[i::n]]


def _merge(calls: list[ray.ObjectRef]) -> list[SampleGroup]:
    groups = [group for part in fetch(calls, "a rollout actor") for group in part]
    return sorted(groups, key=lambda g: g.group_id)
