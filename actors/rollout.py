"""Rollout actors: each one vLLM engine on its share of the machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from actors.failures import fetch
from geovlm_ray.config import Config
from geovlm_ray.dealing import deal
from geovlm_ray.rollout.dispatch import reading
from geovlm_ray.schema import Prompt, SampleGroup

if TYPE_CHECKING:
    from geovlm_ray.sync.buckets import WeightBucket

AT_ONCE = 64
"""Finished parts that are handed on together, about: one at a time, the messages would cost more than the samples."""


class RolloutActor:
    """One engine."""

    def __init__(self, config: Config, model: Path) -> None:
        # Here, so that an actor with an engine of another kind needs no torch.
        from geovlm_ray.local import make_engine

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

    def __init__(self, config: Config, model: Path, kind: type[RolloutActor] = RolloutActor) -> None:
        options: dict[str, Any] = {"num_cpus": config.rollout.num_cpus, "num_gpus": config.rollout.num_gpus}
        if config.sync.mode == "in_flight":
            # Batches up to the staleness bound, held-out and probe draws, and the weights.
            options["max_concurrency"] = config.loop.max_staleness + 3
        self.actors = [
            ray.remote(kind).options(**options, name=f"{config.run.name}-rollout-{i}").remote(config, model)
            for i in range(config.rollout.actors)
        ]

    def submit(self, prompts: Sequence[Prompt]) -> Iterator[list[SampleGroup]]:
        """Start to draw a batch; its groups come, some at a time, as actors finish them."""
        calls = [
            actor.stream.options(num_returns="streaming").remote(part)
            for actor, part in zip(self.actors, deal(prompts, len(self.actors), reading), strict=True)
            if part
        ]
        return _finished(calls)

    def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
        """Completions of each prompt, sorted by group."""
        parts = zip(self.actors, deal(prompts, len(self.actors), reading), strict=True)
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
    """What streaming calls yield, as it comes; what is there at the same time comes together."""
    running = list(calls)
    while running:
        ready, _ = ray.wait(running)
        parts: list[ray.ObjectRef] = []
        while ready and len(parts) < AT_ONCE:
            for call in ready:
                try:
                    parts.append(next(call))
                except StopIteration:
                    running.remove(call)
            ready = ray.wait(running, num_returns=len(running), timeout=0)[0] if running else []
        if parts:
            yield [group for part in fetch(parts, "a rollout actor") for group in part]
