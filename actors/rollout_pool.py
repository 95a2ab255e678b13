"""A pool of rollout actors that replaces dead and stalled ones."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from actors.failures import died_before_start, fetch
from actors.names import next_name
from actors.options import actor_options, start_timeout_error, start_timeout_s
from actors.rollout import RolloutActor
from geovlm_ray.config import Config
from geovlm_ray.core.balance import balance_by_length
from geovlm_ray.core.errors import LostError, RunError, StartError
from geovlm_ray.core.schema import Prompt, SampleGroup
from geovlm_ray.observability.heartbeat import HEARTBEAT, remove_heartbeats
from geovlm_ray.rollout.dispatch import prompt_cost

log = logging.getLogger(__name__)

MAX_READY_PARTS = 64
"""Approximate number of finished parts that are fetched and yielded together, which amortizes the message overhead."""
MAX_CONSECUTIVE_CRASHES = 3
"""Consecutive crashes of one actor slot, without a completed batch in between, after which the run fails.

Actors whose node died before they started do not count.
"""
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

    A dead or stalled actor is replaced. The replacement is used once it has verified the current weights; until then
    the other actors sample what the lost one did not deliver. Every prompt's group arrives exactly once.
    """

    def __init__(self, config: Config, model: Path, actor_class: type[RolloutActor] = RolloutActor) -> None:
        self.config = config
        self.model = model
        self.actor_class = actor_class
        self._lock = threading.RLock()
        self._closed = False
        self._weights: list[ray.ObjectRef] = []
        self._crashes = [0] * config.placement.rollout.actors
        # Time of the last message from a streaming actor, by slot.
        self._last_message = [0.0] * config.placement.rollout.actors
        self._names: dict[ray.actor.ActorHandle, str] = {}
        # Weight transfers that replacement actors must acknowledge before they are used, by slot.
        self._starting: dict[int, list[ray.ObjectRef]] = {}
        self.actors = [self._start() for _ in range(config.placement.rollout.actors)]

    def submit(self, prompts: Sequence[Prompt], **sampling: Any) -> Iterator[list[SampleGroup]]:
        """Start sampling a batch; yields groups as actors finish them."""
        with HEARTBEAT.busy("submit"):
            return self._stream_groups(self._start_requests(prompts, sampling))

    def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
        """Sample completions of each prompt; returns groups sorted by group id."""
        groups: list[SampleGroup] = []
        while prompts:
            actors = self._live_actors()
            parts = zip(actors.items(), balance_by_length(prompts, len(actors), prompt_cost), strict=True)
            calls = [(s, actor, part, actor.generate.remote(part, **sampling)) for (s, actor), part in parts if part]
            prompts = []
            for slot, actor, part, call in calls:
                results = self._results(slot, actor, [call])
                prompts += part if results is None else []
                groups += results[0] if results else []
        return sorted(groups, key=lambda g: g.group_id)

    def probe(self, prompts: Sequence[Prompt], max_tokens: int) -> list[list[SampleGroup]]:
        """Short completions of the same prompts from every live engine, and from at least one."""
        probes: list[list[SampleGroup]] = []
        while not probes:
            calls = [
                (slot, actor, actor.generate.remote(prompts, group_size=1, max_tokens=max_tokens))
                for slot, actor in self._live_actors().items()
            ]
            results = [self._results(slot, actor, [call]) for slot, actor, call in calls]
            probes = [groups for part in results if part for groups in part]
        return probes

    def update_weights(self, buckets: Iterable[ray.ObjectRef]) -> None:
        """Send a weight version to every engine, bucket by bucket; the object store holds a bucket once per node.

        Returns when all engines have acknowledged the version, except those that are still starting.
        """
        targets = list(self.actors)
        calls: list[list[ray.ObjectRef]] = [[] for _ in targets]
        sent = []
        for bucket in buckets:
            sent.append(bucket)
            for actor, received in zip(targets, calls, strict=True):
                received.append(actor.receive.remote(bucket))
        with self._lock:
            self._weights = sent
            for slot, actor in enumerate(self.actors):
                if actor is not targets[slot]:
                    self._starting.setdefault(slot, []).extend(actor.receive.remote(bucket) for bucket in sent)
                elif slot in self._starting:
                    self._starting[slot] += calls[slot]
            awaited = [slot for slot in range(len(targets)) if slot not in self._starting]
        for slot in awaited:
            self._results(slot, targets[slot], calls[slot])

    def close(self) -> None:
        """Kill the actors without replacement."""
        with self._lock:
            self._closed = True
            for actor in self.actors:
                ray.kill(actor)

    def _start_requests(self, prompts: Iterable[Prompt], sampling: Mapping[str, Any]) -> list[_Request]:
        """Balance prompts over the live actors and start sampling."""
        actors = self._live_actors()
        requests = []
        for (slot, actor), part in zip(
            actors.items(), balance_by_length(list(prompts), len(actors), prompt_cost), strict=True
        ):
            if part:
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
                    self._replace(request.slot, request.actor, self._stall_error())
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
                    self._crashes[request.slot] = 0
                if request.waiting:
                    retries = self._start_requests(request.waiting.values(), request.sampling)
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
            LostError: the slot reached `MAX_CONSECUTIVE_CRASHES`.
            RunError: a call failed in another way.
        """
        begun = time.monotonic()
        try:
            while len(ray.wait(calls, num_returns=len(calls), timeout=STALL_POLL_S)[0]) < len(calls):
                if time.monotonic() - max(begun, self._last_message[slot]) > self.config.rollout.stall_s:
                    raise self._stall_error()
            return fetch(calls, ROLLOUT_ACTOR)
        except LostError as error:
            self._replace(slot, actor, error)
            return None

    def _replace(self, slot: int, actor: ray.actor.ActorHandle, error: RunError) -> None:
        """Kill an actor and start a replacement in its slot, unless it was already replaced.

        Raises:
            LostError: the slot reached `MAX_CONSECUTIVE_CRASHES`, or the pool is closed.
        """
        with self._lock:
            if self._closed:
                raise error
            if self.actors[slot] is not actor:
                return
            self._crashes[slot] += not died_before_start(error)
            if self._crashes[slot] == MAX_CONSECUTIVE_CRASHES:
                kind = StartError if isinstance(error, StartError) else LostError
                raise kind(f"{MAX_CONSECUTIVE_CRASHES} consecutive crashes of rollout actor slot {slot}; last: {error}")
            name = self._names.pop(actor)
            log.warning("%s: %s; starting a replacement", name, error)
            ray.kill(actor)
            remove_heartbeats(self.config.run.folder, name)
            self.actors[slot] = self._start()
            if self._weights:
                self._starting[slot] = [self.actors[slot].receive.remote(bucket) for bucket in self._weights]

    def _stall_error(self) -> LostError:
        return LostError(f"{ROLLOUT_ACTOR} returned nothing within rollout.stall_s={self.config.rollout.stall_s:g} s")

    def _live_actors(self) -> dict[int, ray.actor.ActorHandle]:
        """Actors that hold the current weights, by slot; waits for one if all are starting.

        Raises:
            LostError: no actor has started within `start_timeout_s`.
        """
        deadline = time.monotonic() + start_timeout_s(self.config)
        with self._lock:
            while True:
                for slot, calls in list(self._starting.items()):
                    if len(ray.wait(calls, num_returns=len(calls), timeout=0)[0]) == len(calls):
                        del self._starting[slot]
                        self._results(slot, self.actors[slot], calls)
                live = {slot: actor for slot, actor in enumerate(self.actors) if slot not in self._starting}
                if live:
                    return live
                last_calls = [calls[-1] for calls in self._starting.values()]
                if not ray.wait(last_calls, timeout=max(deadline - time.monotonic(), 0))[0]:
                    raise start_timeout_error(self.config, "no rollout actor has started")

    def _start(self) -> ray.actor.ActorHandle:
        name = next_name("rollout")
        options = actor_options(self.config, "rollout", name)
        if self.config.sync.mode == "in_flight":
            # Batches up to the staleness bound, evaluation, the parity probe and the weight sync.
            options["max_concurrency"] = self.config.loop.max_staleness + 3
        actor = ray.remote(self.actor_class).options(**options).remote(self.config, self.model)
        self._names[actor] = name
        return actor
