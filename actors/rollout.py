"""Rollout actors: each one vLLM engine on its share of the machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray

from actors.failures import fetch
from geovlm_ray.config import Config
from geovlm_ray.local import make_engine
from geovlm_ray.rollout.dispatch import deal
from geovlm_ray.schema import Prompt, SampleGroup
from geovlm_ray.sync.buckets import WeightBucket


class RolloutActor:
    """One engine."""

    def __init__(self, config: Config, model: Path) -> None:
        self.engine = make_engine(config, model)

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[list[SampleGroup]]:
        """Draw completions of each prompt, some groups at a time as they are finished."""
        yield from self.engine.stream(prompts)

    def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
        """Draw completions of each prompt."""
        return self.engine.generate(prompts, **sampling)

    def receive(self, bucket: WeightBucket) -> int:
        """Take a part of a version of the weights; returns the version that the engine holds."""
        return self.engine.receive(bucket)


class RayRollouts:
    """All rollout actors as one pool; the prompts of a batch are dealt out so that all have about as much to read.

    With drained syncs an actor does one thing at a time, in the order of the calls: weights that are sent after a
    batch was submitted draw nothing of it. With syncs in flight it takes them between two steps of its engine.
    """

    def __init__(self, config: Config, model: Path) -> None:
        options: dict[str, Any] = {"num_cpus": config.rollout.num_cpus, "num_gpus": config.rollout.num_gpus}
        if config.sync.mode == "in_flight":
            # Batches up to the staleness bound, held-out and probe draws, and the weights.
            options["max_concurrency"] = config.loop.max_staleness + 3
        self.actors = [
            ray.remote(RolloutActor).options(**options, name=f"{config.run.name}-rollout-{i}").remote(config, model)
            for i in range(config.rollout.actors)
        ]

    def submit(self, prompts: Sequence[Prompt]) -> Iterator[list[SampleGroup]]:
        """Start to draw a batch; its groups come, some at a time, as actors finish them."""
        calls = [
            actor.stream.options(num_returns="streaming").remote(part)
            for actor, part in zip(self.actors, deal(prompts, len(self.actors)), strict=True)
            if part
        ]
        return _finished(calls)

    def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
        """Completions of each prompt, sorted by group."""
        parts = zip(self.actors, deal(prompts, len(self.actors)), strict=True)
        calls = [actor.generate.remote(part, **sampling) for actor, part in parts if part]
        groups = [group for drawn in fetch(calls, "a rollout actor") for group in drawn]
        return sorted(groups, key=lambda g: g.group_id)

    def probe(self, prompts: Sequence[Prompt], max_tokens: int) -> list[list[SampleGroup]]:
        """The same short draws from every engine."""
        calls = [a.generate.remote(prompts, group_size=1, max_tokens=max_tokens) for a in self.actors]
        return fetch(calls, "a rollout actor")

    def update_weights(self, buckets: Iterable[ray.ObjectRef]) -> None:
        """Send a version to every engine, each part as soon as it is there; the object store holds it once a node."""
        fetch([actor.receive.remote(bucket) for bucket in buckets for actor in self.actors], "a rollout actor")

    def close(self) -> None:
        """End the actors."""
        for actor in self.actors:
            ray.kill(actor)


def _finished(calls: list[ray.ObjectRefGenerator]) -> Iterator[list[SampleGroup]]:
    """What streaming calls yield, as it comes."""
    running = list(calls)
    while running:
        ready, _ = ray.wait(running)
        for call in ready:
            try:
                part = next(call)
            except StopIteration:
                running.remove(call)
            else:
                yield fetch([part], "a rollout actor")[0]
