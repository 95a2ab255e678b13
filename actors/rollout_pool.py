"""All rollout actors as one pool that goes on when some of them die."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from actors.failures import fetch, never_ran
from actors.names import next_name
from actors.options import actor_options, not_started, start_limit_s
from actors.rollout import RolloutActor
from geovlm_ray.config import Config
from geovlm_ray.core.balance import balance_by_length
from geovlm_ray.core.errors import LostError, RunError, StartError
from geovlm_ray.core.schema import Prompt, SampleGroup
from geovlm_ray.observability.heartbeat import HEARTBEAT, remove_heartbeats
from geovlm_ray.rollout.dispatch import prompt_cost

log = logging.getLogger(__name__)

AT_ONCE = 64
"""Finished parts that are handed on together, about: one at a time, the messages would cost more than the samples."""
DEATHS = 3
"""Deaths in one place, without a batch drawn between them, after which something else is wrong.

An actor that was to start on a node that had just died, unnoticed, is not to blame for it.
"""
WHO = "a rollout actor"
LOOK_S = 5.0
"""Seconds between two looks whether an actor that is waited for has stalled."""


@dataclass
class _Draw:
    """Prompts on their way through an actor; those whose groups have come are no longer among them."""

    slot: int
    actor: ray.actor.ActorHandle
    stream: ray.ObjectRefGenerator
    waiting: dict[int, Prompt]
    sampling: Mapping[str, Any]


class RayRollouts:
    """The prompts of a batch are dealt out so that all actors have about as much to read.

    With drained syncs an actor does one thing at a time, in the order of the calls: weights that are sent after a
    batch was submitted draw nothing of it. With syncs in flight it takes them between two steps of its engine.

    In place of an actor that dies or stalls another one starts, which takes part again once it has verified the present
    weights. Until then the others draw what it had not delivered; every prompt's group comes exactly once.
    """

    def __init__(self, config: Config, model: Path, kind: type[RolloutActor] = RolloutActor) -> None:
        self.config = config
        self.model = model
        self.kind = kind
        self._changing = threading.RLock()
        self._closed = False
        self._weights: list[ray.ObjectRef] = []
        self._deaths = [0] * config.placement.rollout.actors
        # When something last came of an actor that draws, by its slot.
        self._heard = [0.0] * config.placement.rollout.actors
        self._names: dict[ray.actor.ActorHandle, str] = {}
        # What actors that replace others have to acknowledge before they draw, by their slot.
        self._starting: dict[int, list[ray.ObjectRef]] = {}
        self.actors = [self._start() for _ in range(config.placement.rollout.actors)]

    def submit(self, prompts: Sequence[Prompt], **sampling: Any) -> Iterator[list[SampleGroup]]:
        """Start to draw a batch; its groups come, some at a time, as actors finish them."""
        with HEARTBEAT.busy("submit"):
            return self._finished(self._draw(prompts, sampling))

    def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
        """Completions of each prompt, sorted by group."""
        groups: list[SampleGroup] = []
        while prompts:
            actors = self._living()
            parts = zip(actors.items(), balance_by_length(prompts, len(actors), prompt_cost), strict=True)
            calls = [(s, actor, part, actor.generate.remote(part, **sampling)) for (s, actor), part in parts if part]
            prompts = []
            for slot, actor, part, call in calls:
                drawn = self._result(slot, actor, [call])
                prompts += part if drawn is None else []
                groups += drawn[0] if drawn else []
        return sorted(groups, key=lambda g: g.group_id)

    def probe(self, prompts: Sequence[Prompt], max_tokens: int) -> list[list[SampleGroup]]:
        """The same short draws from every engine that lives, and from one at least."""
        drawn: list[list[SampleGroup]] = []
        while not drawn:
            calls = [
                (slot, actor, actor.generate.remote(prompts, group_size=1, max_tokens=max_tokens))
                for slot, actor in self._living().items()
            ]
            found = [self._result(slot, actor, [call]) for slot, actor, call in calls]
            drawn = [groups for part in found if part for groups in part]
        return drawn

    def update_weights(self, buckets: Iterable[ray.ObjectRef]) -> None:
        """Send a version to every engine, each part as soon as it is there; the object store holds it once a node.

        Returns when all engines have acknowledged it but those that are only starting.
        """
        targets = list(self.actors)
        calls: list[list[ray.ObjectRef]] = [[] for _ in targets]
        sent = []
        for bucket in buckets:
            sent.append(bucket)
            for actor, received in zip(targets, calls, strict=True):
                received.append(actor.receive.remote(bucket))
        with self._changing:
            self._weights = sent
            for slot, actor in enumerate(self.actors):
                if actor is not targets[slot]:
                    self._starting.setdefault(slot, []).extend(actor.receive.remote(bucket) for bucket in sent)
                elif slot in self._starting:
                    self._starting[slot] += calls[slot]
            waited = [slot for slot in range(len(targets)) if slot not in self._starting]
        for slot in waited:
            self._result(slot, targets[slot], calls[slot])

    def close(self) -> None:
        """End the actors; none takes their place."""
        with self._changing:
            self._closed = True
            for actor in self.actors:
                ray.kill(actor)

    def _draw(self, prompts: Iterable[Prompt], sampling: Mapping[str, Any]) -> list[_Draw]:
        """Deal prompts out to the actors that live."""
        actors = self._living()
        draws = []
        for (slot, actor), part in zip(
            actors.items(), balance_by_length(list(prompts), len(actors), prompt_cost), strict=True
        ):
            if part:
                stream = actor.stream.options(num_returns="streaming").remote(part, **sampling)
                draws.append(_Draw(slot, actor, stream, {p.group_id: p for p in part}, sampling))
        return draws

    def _finished(self, draws: list[_Draw]) -> Iterator[list[SampleGroup]]:
        """What draws yield, as it comes; what is there at the same time comes together."""
        running = {draw.stream: draw for draw in draws}
        while running:
            ready, _ = ray.wait(list(running), timeout=self.config.rollout.stall_s)
            if not ready:
                for draw in running.values():
                    self._replace(draw.slot, draw.actor, self._stalled())
            parts: list[tuple[_Draw, ray.ObjectRef]] = []
            ended: list[_Draw] = []
            while ready and len(parts) < AT_ONCE:
                for stream in ready:
                    try:
                        parts.append((running[stream], next(stream)))
                    except StopIteration:
                        ended.append(running.pop(stream))
                ready = ray.wait(list(running), num_returns=len(running), timeout=0)[0] if running else []
            groups = self._delivered(parts)
            if groups:
                yield groups
            for draw in ended:
                if not draw.waiting:
                    self._deaths[draw.slot] = 0
                if draw.waiting:
                    running |= {again.stream: again for again in self._draw(draw.waiting.values(), draw.sampling)}

    def _delivered(self, parts: Sequence[tuple[_Draw, ray.ObjectRef]]) -> list[SampleGroup]:
        """Groups that have come; of an actor that died, none."""
        try:
            found = [[part] for part in fetch([ref for _, ref in parts], WHO)]
        except LostError:
            found = [self._result(draw.slot, draw.actor, [ref]) or [[]] for draw, ref in parts]
        groups = []
        for (draw, _), part in zip(parts, found, strict=True):
            self._heard[draw.slot] = time.monotonic()
            for group in part[0]:
                del draw.waiting[group.group_id]
                groups.append(group)
        return groups

    def _result(self, slot: int, actor: ray.actor.ActorHandle, calls: Sequence[ray.ObjectRef]) -> list[Any] | None:
        """What calls of an actor return; None where it died or stalled, and another one was started.

        Raises:
            LostError: `DEATHS` actors died in its place.
            RunError: it failed in another way.
        """
        begun = time.monotonic()
        try:
            while len(ray.wait(calls, num_returns=len(calls), timeout=LOOK_S)[0]) < len(calls):
                if time.monotonic() - max(begun, self._heard[slot]) > self.config.rollout.stall_s:
                    raise self._stalled()
            return fetch(calls, WHO)
        except LostError as error:
            self._replace(slot, actor, error)
            return None

    def _replace(self, slot: int, actor: ray.actor.ActorHandle, error: RunError) -> None:
        """End an actor and start another one in its place, unless that was done already.

        Raises:
            LostError: `DEATHS` actors died in its place.
        """
        with self._changing:
            if self._closed:
                raise error
            if self.actors[slot] is not actor:
                return
            self._deaths[slot] += not never_ran(error)
            if self._deaths[slot] == DEATHS:
                kind = StartError if isinstance(error, StartError) else LostError
                raise kind(f"{DEATHS} rollout actors died in one place, one after the other; the last: {error}")
            name = self._names.pop(actor)
            log.warning("%s: %s; another one takes its place", name, error)
            ray.kill(actor)
            remove_heartbeats(self.config.run.folder, name)
            self.actors[slot] = self._start()
            if self._weights:
                self._starting[slot] = [self.actors[slot].receive.remote(bucket) for bucket in self._weights]

    def _stalled(self) -> LostError:
        return LostError(f"{WHO} gave nothing within rollout.stall_s={self.config.rollout.stall_s:g} s")

    def _living(self) -> dict[int, ray.actor.ActorHandle]:
        """Actors that hold the present weights, by slot; waits for one where all are starting.

        Raises:
            LostError: none has started within `start_limit_s`.
        """
        end = time.monotonic() + start_limit_s(self.config)
        with self._changing:
            while True:
                for slot, calls in list(self._starting.items()):
                    if len(ray.wait(calls, num_returns=len(calls), timeout=0)[0]) == len(calls):
                        del self._starting[slot]
                        self._result(slot, self.actors[slot], calls)
                living = {slot: actor for slot, actor in enumerate(self.actors) if slot not in self._starting}
                if living:
                    return living
                lasts = [calls[-1] for calls in self._starting.values()]
                if not ray.wait(lasts, timeout=max(end - time.monotonic(), 0))[0]:
                    raise not_started(self.config, "no rollout actor has started")

    def _start(self) -> ray.actor.ActorHandle:
        name = next_name("rollout")
        options = actor_options(self.config, "rollout", name)
        if self.config.sync.mode == "in_flight":
            # Batches up to the staleness bound, held-out and probe draws, and the weights.
            options["max_concurrency"] = self.config.loop.max_staleness + 3
        started = ray.remote(self.kind).options(**options).remote(self.config, self.model)
        self._names[started] = name
        return started
