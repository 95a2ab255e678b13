"""Simulated rollout engine with continuous batching."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

from geovlm_ray.training.plan.rates import Rates


@dataclass(slots=True)
class Group:
    """The completions of one prompt.

    ``number`` counts groups over all batches from 0. ``longest`` is the length of the longest completion and ``tokens``
    the sum over all completions, in tokens. ``version`` is the weight version at the start, the oldest of its tokens.
    """

    number: int
    batch: int
    longest: int
    tokens: int
    version: int = -1


class SimulatedEngine:
    """Generates groups concurrently; every iteration adds one token to each running completion.

    A group runs for ``longest`` iterations with ``tokens / longest`` completions in each, so total cost matches its
    tokens and iterations exactly. Without ``streams``, batches and weight updates are processed in order of submission,
    each after the previous one is complete. With ``streams``, a group starts as soon as fewer than ``max_groups`` run,
    and weights are loaded immediately, between two iterations. ``sync_s`` is the time to load weights.
    """

    def __init__(self, rates: Rates, max_groups: int, sync_s: float, *, streams: bool) -> None:
        self.rates = rates
        self.max_groups = max_groups
        self.sync_s = sync_s
        self.streams = streams
        self.version = 0
        self.busy_s = 0.0
        self.queue: deque[list[Group] | int] = deque()
        self._waiting: deque[Group] = deque()
        self._running: list[tuple[float, int, Group]] = []
        self._load = 0.0
        self._iterations = 0.0
        self._clock = 0.0
        self._blocked_until = 0.0

    @property
    def groups(self) -> list[Group]:
        """The submitted groups that are not finished."""
        queued = [group for item in self.queue if isinstance(item, list) for group in item]
        return [*(group for _, _, group in self._running), *self._waiting, *queued]

    def submit(self, now: float, groups: list[Group]) -> None:
        """Queue the engine's groups of a batch."""
        self.advance(now)
        self.queue.append(groups)

    def update_weights(self, now: float, version: int) -> None:
        """Queue a weight update."""
        self.advance(now)
        if self.streams:
            self.queue.appendleft(version)
        else:
            self.queue.append(version)

    def begin(self, now: float) -> list[float]:
        """Start queued work that can start; returns the times at which weight updates are loaded."""
        loaded_at = []
        while self.queue and (self.streams or not (self._running or self._waiting)):
            item = self.queue.popleft()
            if isinstance(item, list):
                self._waiting.extend(item)
            else:
                self._blocked_until = max(self._blocked_until, now) + self.sync_s
                self.version = item
                loaded_at.append(self._blocked_until)
        self._fill(now)
        return loaded_at

    def next_finish(self) -> float | None:
        """Time at which the next group finishes if nothing else is submitted; None if idle."""
        if not self._running:
            return None
        remaining = max(0.0, self._running[0][0] - self._iterations)
        return max(self._clock, self._blocked_until) + remaining * self._seconds_per_iteration

    def finish(self, now: float) -> list[Group]:
        """Remove and return the groups that finish at the time returned by `next_finish`."""
        self.advance(now)
        end = self._iterations = self._running[0][0]
        finished = []
        while self._running and self._running[0][0] <= end:
            group = heapq.heappop(self._running)[2]
            self._load -= group.tokens / group.longest
            finished.append(group)
        return finished

    def advance(self, now: float) -> None:
        """Advance the clock over a period in which nothing starts or finishes."""
        begun = max(self._clock, self._blocked_until)
        if self._running and now > begun:
            self._iterations += (now - begun) / self._seconds_per_iteration
            self.busy_s += now - begun
        self._clock = now

    @property
    def _seconds_per_iteration(self) -> float:
        return self.rates.decode_s_per_step + self._load * self.rates.decode_s_per_token

    def _fill(self, now: float) -> None:
        if not self._running:
            self._load = 0.0
        while self._waiting and len(self._running) < self.max_groups:
            group = self._waiting.popleft()
            group.version = self.version
            heapq.heappush(self._running, (self._iterations + group.longest, group.number, group))
            self._load += group.tokens / group.longest
            self._blocked_until = max(self._blocked_until, now) + self.rates.prefill_s_per_prompt
            self.busy_s += self.rates.prefill_s_per_prompt
