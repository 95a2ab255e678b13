"""A pool of rollout actors that replaces dead and stalled ones."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from actors.failures import fetch
from actors.placement import Reservation
from actors.rollout import RolloutActor
from actors.slots import ActorSlots
from geovlm_ray.config import Config
from geovlm_ray.core.balance import balance_by_length
from geovlm_ray.core.errors import LostError
from geovlm_ray.core.interfaces import Weights
from geovlm_ray.core.schema import Prompt, SampleGroup
from geovlm_ray.observability.heartbeat import HEARTBEAT
from geovlm_ray.rollout.dispatch import prompt_cost

MAX_READY_PARTS = 64
"""Approximate number of finished parts that are fetched and yielded together, which amortizes the message overhead."""
ROLLOUT_ACTOR = "a rollout actor"
STALL_POLL_S = 5.0
"""Seconds between stall checks while waiting for an actor."""


@dataclass
class _Request:
    """Prompts submitted to one actor; ``waiting``, keyed by group id, holds those whose groups have not arrived."""

    slot: int
    actor: ray.actor.ActorHandle
    stream: ray.ObjectRefGenerator
    waiting: dict[int, Prompt]
    sampling: Mapping[str, Any]


class RayRollouts:
    """All rollout actors; the prompts of a batch are balanced over the actors by prefill cost.

    With drained syncs an actor executes its calls in order: weights sent after a batch was submitted do not affect it.
    With in-flight syncs the engine loads them between two of its steps.

    A dead or stalled actor is replaced. The replacement is used once it has acknowledged the current weights; until
    then the other actors sample what the lost one did not deliver. Every prompt's group arrives exactly once.
    """

    def __init__(
        self,
        config: Config,
        model: Path,
        actor_class: type[RolloutActor] = RolloutActor,
        reservation: Reservation | None = None,
    ) -> None:
        self.config = config
        size = config.placement.rollout.actors
        # In flight: batches up to the staleness bound, evaluation, the parity probe and the weight sync.
        options = {"max_concurrency": config.loop.max_staleness + 3} if config.sync.mode == "in_flight" else {}
        self.slots = ActorSlots(config, "rollout", size, actor_class, config, model, reservation=reservation, **options)
        # Calls may queue until the actor has started.
        self.slots.require(lambda actor: [])
        self.actors = self.slots.actors
        self._endpoint_calls: dict[ray.actor.ActorHandle, ray.ObjectRef] = {}
        # Time of the last message from a streaming actor, by slot.
        self._last_message = [0.0] * size

    def submit(self, prompts: Sequence[Prompt], **sampling: Any) -> Iterator[list[SampleGroup]]:
        """Start sampling a batch; yields groups as actors finish them."""
        with HEARTBEAT.busy("submit"):
            return self._stream_groups(self._start_requests(prompts, sampling))

    def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
        """Sample completions of each prompt; returns groups sorted by group id."""
        groups: list[SampleGroup] = []
        while prompts:
            parts = self._balanced(prompts)
            calls = [actor.generate.remote(part, **sampling) for _, actor, part in parts]
            prompts = []
            for (slot, actor, part), call in zip(parts, calls, strict=True):
                results = self._results(slot, actor, [call])
                if results is None:
                    prompts += part
                else:
                    self.slots.completed(slot)
                    groups += results[0]
        return sorted(groups, key=lambda g: g.group_id)

    def probe(self, prompts: Sequence[Prompt], max_tokens: int) -> list[list[SampleGroup]]:
        """Short completions of the same prompts from every live engine, and from at least one."""
        probes: list[list[SampleGroup]] = []
        while not probes:
            calls = [
                (slot, actor, actor.generate.remote(prompts, group_size=1, max_tokens=max_tokens))
                for slot, actor in self.slots.ready(at_least=1).items()
            ]
            results = [self._results(slot, actor, [call]) for slot, actor, call in calls]
            probes = [groups for part in results if part for groups in part]
        return probes

    def update_weights(self, weights: Weights) -> None:
        """Forward the chunks of a weight version to every engine.

        Returns when all engines have acknowledged the version, except those that still start as replacements.
        """
        replayable = self.config.transport.replayable
        ready = self.slots.ready()
        endpoints = {} if replayable else self._endpoints(ready)
        receivers = [*ready.values(), *self.actors] if replayable else list(endpoints)
        receipts: dict[ray.actor.ActorHandle, list[ray.ObjectRef]] = {actor: [] for actor in receivers}
        sent = []
        for chunk in weights(list(endpoints.values())):
            sent.append(chunk)
            for actor, calls in receipts.items():
                calls.append(actor.receive.remote(chunk))

        def acknowledgements(actor: ray.actor.ActorHandle) -> list[ray.ObjectRef] | None:
            if actor in receipts:
                return receipts[actor]
            if replayable:
                return [actor.receive.remote(chunk) for chunk in sent]
            self._endpoint_calls[actor] = actor.endpoint.remote()
            return None

        self.slots.require(acknowledgements)
        for slot, actor in enumerate(self.actors):
            if ready.get(slot) is actor or actor in endpoints:
                self._results(slot, actor, receipts.get(actor, []))

    def sleep(self) -> None:
        """Give back the GPU memory of all engines that have started."""
        calls = {slot: (actor, actor.sleep.remote()) for slot, actor in self.slots.ready().items()}
        for slot, (actor, call) in calls.items():
            self._results(slot, actor, [call])

    def _endpoints(self, ready: Mapping[int, ray.actor.ActorHandle]) -> dict[ray.actor.ActorHandle, Any]:
        """Endpoints of the ready actors, and of the replacements that have started."""
        calls = {actor: self._endpoint_calls.get(actor) or actor.endpoint.remote() for actor in self.actors}
        self._endpoint_calls = calls
        endpoints = {}
        for slot, (actor, call) in enumerate(calls.items()):
            if ready.get(slot) is actor or ray.wait([call], timeout=0)[0]:
                found = self._results(slot, actor, [call])
                if found is not None:
                    endpoints[actor] = found[0]
        return endpoints

    def close(self) -> None:
        """Kill the actors without replacement."""
        self.slots.close()

    def _balanced(self, prompts: Sequence[Prompt]) -> list[tuple[int, ray.actor.ActorHandle, Sequence[Prompt]]]:
        """Slot, actor and part of the prompts of every ready actor that gets any."""
        actors = self.slots.ready(at_least=1)
        parts = balance_by_length(prompts, len(actors), prompt_cost)
        return [(slot, actor, part) for (slot, actor), part in zip(actors.items(), parts, strict=True) if part]

    def _start_requests(self, prompts: Sequence[Prompt], sampling: Mapping[str, Any]) -> list[_Request]:
        """Balance prompts over the ready actors and start sampling."""
        requests = []
        for slot, actor, part in self._balanced(prompts):
            stream = actor.stream.options(num_returns="streaming").remote(part, **sampling)
            requests.append(_Request(slot, actor, stream, {p.group_id: p for p in part}, sampling))
        return requests

    def _stream_groups(self, requests: list[_Request]) -> Iterator[list[SampleGroup]]:
        """Yield the groups of requests as they arrive, those that are ready at the same time together."""
        running = {request.stream: request for request in requests}
        while running:
            ready, _ = ray.wait(list(running), timeout=self.config.rollout.stall_s)
            if not ready:
                for request in running.values():
                    self.slots.replace(request.slot, request.actor, self._stall_error())
            parts: list[tuple[_Request, ray.ObjectRef]] = []
            ended: list[_Request] = []
            while ready and len(parts) < MAX_READY_PARTS:
                for stream in ready:
                    try:
                        parts.append((running[stream], next(stream)))
                    except StopIteration:
                        ended.append(running.pop(stream))
                ready = ray.wait(list(running), num_returns=len(running), timeout=0)[0] if running else []
            groups = self._fetch_groups(parts)
            if groups:
                yield groups
            for request in ended:
                if not request.waiting:
                    self.slots.completed(request.slot)
                else:
                    retries = self._start_requests(list(request.waiting.values()), request.sampling)
                    running |= {retry.stream: retry for retry in retries}

    def _fetch_groups(self, parts: Sequence[tuple[_Request, ray.ObjectRef]]) -> list[SampleGroup]:
        """Groups of finished parts; those of a dead actor yield none."""
        try:
            results = [[part] for part in fetch([ref for _, ref in parts], ROLLOUT_ACTOR)]
        except LostError:
            results = [self._results(request.slot, request.actor, [ref]) or [[]] for request, ref in parts]
        groups = []
        for (request, _), part in zip(parts, results, strict=True):
            self._last_message[request.slot] = time.monotonic()
            for group in part[0]:
                del request.waiting[group.group_id]
                groups.append(group)
        return groups

    def _results(self, slot: int, actor: ray.actor.ActorHandle, calls: Sequence[ray.ObjectRef]) -> list[Any] | None:
        """Results of calls to an actor; None if it died or stalled and was replaced.

        Raises:
            LostError: the actor cannot be replaced (`ActorSlots.replace`).
            RunError: a call failed in another way.
        """
        begun = time.monotonic()
        try:
            while len(ray.wait(calls, num_returns=len(calls), timeout=STALL_POLL_S)[0]) < len(calls):
                if time.monotonic() - max(begun, self._last_message[slot]) > self.config.rollout.stall_s:
                    raise self._stall_error()
            return fetch(calls, ROLLOUT_ACTOR)
        except LostError as error:
            self.slots.replace(slot, actor, error)
            return None

    def _stall_error(self) -> LostError:
        return LostError(f"{ROLLOUT_ACTOR} returned nothing within rollout.stall_s={self.config.rollout.stall_s:g} s")
