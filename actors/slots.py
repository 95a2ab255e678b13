"""Actors of one kind in numbered slots: start, readiness, replacement after a crash."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import ray

from actors.failures import died_before_start, fetch
from actors.options import actor_options
from actors.placement import Reservation
from geovlm_ray.config import Config
from geovlm_ray.core.errors import LostError, RunError, StartError
from geovlm_ray.observability.heartbeat import remove_heartbeats

log = logging.getLogger(__name__)

MAX_CONSECUTIVE_CRASHES = 3
"""Consecutive crashes in one slot, without completed work in between, after which the run fails.

Actors whose node died before they started do not count.
"""
Condition = Callable[[ray.actor.ActorHandle], list[ray.ObjectRef] | None]
"""Returns the calls that an actor must complete before it is used; None if it must not be used."""

_numbers: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)


class ActorSlots:
    """Actors that are started together, used when they are ready, and replaced one by one.

    An actor is ready when it has started, or meets the condition that `require` sets. ``actors`` holds the current
    actor of each slot; ``kind`` is a field of `PlacementConfig`. Thread-safe; no lock is held while a call waits.
    """

    def __init__(
        self,
        config: Config,
        kind: str,
        count: int,
        actor_class: type,
        *arguments: Any,
        reservation: Reservation | None = None,
        **options: Any,
    ) -> None:
        self.config = config
        self._reservation = reservation
        self._kind = kind
        self._actor_class = actor_class
        self._arguments = arguments
        self._options = options
        self._lock = threading.Lock()
        self._closed = False
        self._crashes = [0] * count
        self._names = [""] * count
        self.actors = [self._start(slot) for slot in range(count)]
        self.require(lambda actor: [actor.__ray_ready__.remote()])

    def require(self, condition: Condition) -> None:
        """Set the condition on which actors are ready, for the current ones and their replacements."""
        with self._lock:
            self._condition = condition
            # Calls that the actor of a slot still has to complete.
            self._awaited = [condition(actor) for actor in self.actors]

    def ready(self, at_least: int = 0) -> dict[int, ray.actor.ActorHandle]:
        """The ready actors by slot, after waiting for some; those that crash before they are ready are replaced.

        Raises:
            LostError: fewer than ``at_least`` got ready in time; or as in `replace`.
        """
        # Actors may have to wait for nodes.
        timeout_s = max(self.config.rollout.stall_s, self.config.run.wait_for_nodes_s)
        deadline = time.monotonic() + timeout_s
        while True:
            self._check_awaited()
            with self._lock:
                ready = {slot: actor for slot, actor in enumerate(self.actors) if self._awaited[slot] == []}
                awaited = [call for calls in self._awaited for call in calls or ()]
            if len(ready) >= at_least:
                return ready
            if not awaited:
                raise LostError(f"all {self._kind} actors were lost, and their replacements cannot be used yet")
            if not ray.wait(awaited, timeout=max(deadline - time.monotonic(), 0))[0]:
                raise LostError(
                    f"{self._kind} actors: expected at least {at_least} to start, found {len(ready)} within "
                    f"{timeout_s:g} s, the longer of rollout.stall_s and run.wait_for_nodes_s; `ray status` shows free "
                    "resources and pending demands"
                )

    def completed(self, slot: int) -> None:
        """Record that the actor of a slot has completed work: its crashes count from 0 again."""
        self._crashes[slot] = 0

    def replace(self, slot: int, actor: ray.actor.ActorHandle, error: RunError) -> None:
        """Kill an actor because of an error and start another in its slot, unless it was already replaced.

        Raises:
            LostError: the slot reached `MAX_CONSECUTIVE_CRASHES`, its actor is an engine with a part of a GPU, or the
                actors are closed.
        """
        with self._lock:
            if self._closed:
                raise error
            if self.actors[slot] is not actor:
                return
            if self._kind == "rollout" and 0 < self.config.placement.rollout.num_gpus < 1:
                raise LostError(f"{error}; a replacement cannot start on a GPU that others use meanwhile") from error
            self._crashes[slot] += not died_before_start(error)
            if self._crashes[slot] >= MAX_CONSECUTIVE_CRASHES:
                cause = StartError if isinstance(error, StartError) else LostError
                count = self._crashes[slot]
                raise cause(f"{count} consecutive crashes of {self._kind} actor slot {slot}; last: {error}") from error
            log.warning("%s: %s; starting a replacement", self._names[slot], error)
            ray.kill(actor)
            if self._reservation is not None:
                self._reservation.renew(self._kind, slot)
            remove_heartbeats(self.config.run.folder, self._names[slot])
            self.actors[slot] = self._start(slot)
            self._awaited[slot] = self._condition(self.actors[slot])

    def close(self) -> None:
        """Kill the actors without replacement; calls that wait for them raise LostError."""
        with self._lock:
            self._closed = True
            for actor in self.actors:
                ray.kill(actor)

    def _start(self, slot: int) -> ray.actor.ActorHandle:
        # Unique in this process: a replacement may start before the dead actor is gone.
        self._names[slot] = f"{self._kind}-{next(_numbers[self._kind])}"
        options = actor_options(self.config, self._kind, self._names[slot]) | self._options
        if self._reservation is not None:
            options |= self._reservation.options(self._kind, slot)
        return ray.remote(self._actor_class).options(**options).remote(*self._arguments)

    def _check_awaited(self) -> None:
        """Forget the awaited calls that are complete; replace actors that crashed during one."""
        with self._lock:
            slots = list(zip(self.actors, self._names, self._awaited, strict=True))
        for slot, (actor, name, calls) in enumerate(slots):
            if not calls:
                continue
            done, pending = ray.wait(calls, num_returns=len(calls), timeout=0)
            try:
                fetch(done, f"actor {name}")
            except LostError as error:
                self.replace(slot, actor, error)
            else:
                with self._lock:
                    if self._awaited[slot] is calls:
                        self._awaited[slot] = pending
