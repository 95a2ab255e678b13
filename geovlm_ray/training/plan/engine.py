"""One rollout engine in simulated time."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

from geovlm_ray.training.plan.rates import Rates


@dataclass(slots=True)
class Group:
    """A prompt's completions: the batch it belongs to, its longest completion and all its completions in tokens.

    ``version`` is that of the weights which began it, the oldest of any of its tokens.
    """

    number: int
    batch: int
    longest: int
    tokens: int
    version: int = -1


class SimulatedEngine:
    """Draws groups side by side, each iteration giving every running completion one token.

    A group runs for as many iterations as its longest completion has tokens, and counts in each as many completions
    as it has on average, so that a draw costs what its tokens and iterations cost, to the token. Batches and weights
    are taken in the order of the calls, one after the other; where the engine streams, a group starts as soon as
    there is room, and weights are taken at once, between two iterations.
    """

    def __init__(self, rates: Rates, room: int, sync_s: float, *, streams: bool) -> None:
        self.rates = rates
        self.room = room
        self.sync_s = sync_s
        self.streams = streams
        self.version = 0
        self.busy_s = 0.0
        self.calls: deque[list[Group] | int] = deque()
        self._waiting: deque[Group] = deque()
        self._running: list[tuple[float, int, Group]] = []
        self._load = 0.0
        self._iterations = 0.0
        self._clock = 0.0
        self._held_until = 0.0

    @property
    def groups(self) -> list[Group]:
        """What was submitted and is not finished."""
        called = [group for call in self.calls if isinstance(call, list) for group in call]
        return [*(group for _, _, group in self._running), *self._waiting, *called]

    def submit(self, now: float, groups: list[Group]) -> None:
        """Submit the engine's share of a batch."""
        self.advance(now)
        self.calls.append(groups)

    def take_weights(self, now: float, version: int) -> None:
        """Submit a version of the weights."""
        self.advance(now)
        if self.streams:
            self.calls.appendleft(version)
        else:
            self.calls.append(version)

    def begin(self, now: float) -> list[float]:
        """Start what can start; returns when weights that were submitted are held."""
        held = []
        while self.calls and (self.streams or not (self._running or self._waiting)):
            call = self.calls.popleft()
            if isinstance(call, list):
                self._waiting.extend(call)
            else:
                self._held_until = max(self._held_until, now) + self.sync_s
                self.version = call
                held.append(self._held_until)
        self._fill(now)
        return held

    def next_finish(self) -> float | None:
        """When the next group is finished, if nothing else happens."""
        if not self._running:
            return None
        left = max(0.0, self._running[0][0] - self._iterations)
        return max(self._clock, self._held_until) + left * self._pace

    def finish(self, now: float) -> list[Group]:
        """The groups that are finished at the time that `next_finish` gave."""
        self.advance(now)
        end = self._iterations = self._running[0][0]
        finished = []
        while self._running and self._running[0][0] <= end:
            group = heapq.heappop(self._running)[2]
            self._load -= group.tokens / group.longest
            finished.append(group)
        return finished

    def advance(self, now: float) -> None:
        """Let time pass in which nothing starts or ends."""
        begun = max(self._clock, self._held_until)
        if self._running and now > begun:
            self._iterations += (now - begun) / self._pace
            self.busy_s += now - begun
        self._clock = now

    @property
    def _pace(self) -> float:
        """Seconds of one iteration."""
        return self.rates.decode_s_per_step + self._load * self.rates.decode_s_per_token

    def _fill(self, now: float) -> None:
        if not self._running:
            self._load = 0.0
        while self._waiting and len(self._running) < self.room:
            group = self._waiting.popleft()
            group.version = self.version
            heapq.heappush(self._running, (self._iterations + group.longest, group.number, group))
            self._load += group.tokens / group.longest
            self._held_until = max(self._held_until, now) + self.rates.prefill_s_per_prompt
            self.busy_s += self.rates.prefill_s_per_prompt
