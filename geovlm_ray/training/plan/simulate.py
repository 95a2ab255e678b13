"""A discrete-event simulation of the training loop: step time, idle time of each component, staleness of samples."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from geovlm_ray.config import Config
from geovlm_ray.training.plan.engine import Group, SimulatedEngine
from geovlm_ray.training.plan.rates import Rates

Handler = Callable[[float, int, int], None]
"""What happens at an event: its time, the engine, and the state of the engine's course when it was foreseen."""


@dataclass(frozen=True)
class Setup:
    """What a loop is made of: engines, reward actors, GPUs of the learner, and the settings of a batch.

    ``in_flight``: engines draw the groups of any submitted batch as there is room, and take weights between two
    iterations without finishing first; without it they take batches and weights in the order of the calls.
    ``colocated``: engines and learner take turns on the same GPUs, so that ``rollout_actors`` equals ``learner_gpus``
    and there is no staleness.
    """

    rollout_actors: int
    learner_gpus: int
    prompts_per_step: int
    group_size: int
    max_staleness: int
    reward_actors: int = 1
    in_flight: bool = False
    colocated: bool = False

    @classmethod
    def of(cls, config: Config) -> Setup:
        """The loop that a configuration runs."""
        return cls(
            config.placement.rollout.actors,
            config.placement.learner.actors,
            config.rollout.prompts_per_step,
            config.rollout.group_size,
            config.loop.max_staleness,
            config.placement.reward.actors,
            config.sync.mode == "in_flight",
        )

    def __post_init__(self) -> None:
        if self.colocated and (self.max_staleness or self.rollout_actors != self.learner_gpus):
            raise ValueError(f"colocated means as many engines as learner GPUs and no staleness, found {self}")

    @property
    def gpus(self) -> int:
        """GPUs of engines and learner together."""
        return self.rollout_actors if self.colocated else self.rollout_actors + self.learner_gpus


class Assumed(BaseModel):
    """What one machine cannot measure, or a run's records do not tell."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    learner_efficiency: float = Field(0.95, gt=0, le=1, description="speed kept when the learner's GPUs double")
    sync_growth: float = Field(0.1, ge=0, description="part of the sync that is added when the engines double")
    switch_s: float = Field(1.0, ge=0, description="seconds in which colocated engines and learner change places")
    sequences: int = Field(256, ge=1, description="completions that an engine draws at once")

    def groups_at_once(self, group_size: int) -> int:
        """Groups that an engine draws at once."""
        return max(1, self.sequences // group_size)


@dataclass(frozen=True)
class SimulationResult:
    """A simulated run, after the steps in which its pipeline filled.

    ``idle`` is the share of the time in which the actors of a kind (``rollout``, ``reward``, ``learner``) do none of
    their own work, ``gpu`` the share in which the GPUs do none. ``staleness`` counts the trained samples by the
    learner's version less that of the weights which began them. ``trained`` and ``in_flight`` number the groups from 0
    in the order in which they were submitted.
    """

    setup: Setup
    step_s: float
    samples_per_s: float
    idle: dict[str, float]
    staleness: dict[int, int]
    trained: tuple[int, ...]
    in_flight: tuple[int, ...]


def simulate(
    rates: Rates, setup: Setup, assumed: Assumed | None = None, *, steps: int = 50, seed: int = 0
) -> SimulationResult:
    """Run the loop for some steps; the same seed gives the same lengths to every setup with the same batch.

    Raises:
        ValueError: fewer than 2 steps beyond those that fill the pipeline.
    """
    if steps < setup.max_staleness + 3:
        raise ValueError(f"max_staleness={setup.max_staleness} needs at least {setup.max_staleness + 3} steps")
    return _Loop(rates, setup, assumed or Assumed(), seed).run(steps)


def learner_seconds(rates: Rates, setup: Setup, assumed: Assumed, tokens: float) -> float:
    """A learner step over a batch of so many tokens: the fullest GPU's share of the groups, and what scaling costs."""
    work = setup.prompts_per_step * rates.learner_s_per_group + tokens * rates.learner_s_per_token
    share = math.ceil(setup.prompts_per_step / setup.learner_gpus) / setup.prompts_per_step * rates.learner_gpus
    return work * share / assumed.learner_efficiency ** math.log2(setup.learner_gpus / rates.learner_gpus)


def sync_seconds(rates: Rates, setup: Setup, assumed: Assumed) -> float:
    """A version's way to all engines, once they are ready for it."""
    doublings = math.log2(setup.rollout_actors / rates.rollout_actors)
    return rates.sync_s * (1 + assumed.sync_growth * max(0.0, doublings))


def reward_seconds(rates: Rates, setup: Setup) -> float:
    """Scoring a batch whose groups are finished all at once."""
    share = math.ceil(setup.prompts_per_step / setup.reward_actors)
    return share * setup.group_size * rates.reward_s_per_completion


class Lengths:
    """Draws completions' lengths: a measured group, and from it as many completions as are asked for."""

    def __init__(self, rates: Rates, seed: int) -> None:
        self.seed = seed
        self._flat = np.concatenate([np.array(group) for group in rates.completion_tokens])
        self._sizes = np.array([len(group) for group in rates.completion_tokens])
        self._starts = np.cumsum(self._sizes) - self._sizes

    def batch(self, number: int, prompts: int, group_size: int) -> np.ndarray:
        """Lengths of a batch in tokens, [prompts, group_size]."""
        rng = np.random.default_rng([self.seed, number])
        groups = rng.integers(0, len(self._sizes), prompts)
        members = rng.random((prompts, group_size)) * self._sizes[groups, None]
        return self._flat[self._starts[groups, None] + members.astype(int)]


class _Loop:
    """The driver, its engines and the events between them: a heap of (time, number, handler, engine, course)."""

    def __init__(self, rates: Rates, setup: Setup, assumed: Assumed, seed: int) -> None:
        self.rates, self.setup, self.assumed = rates, setup, assumed
        room = assumed.groups_at_once(setup.group_size)
        sync_s = sync_seconds(rates, setup, assumed)
        self.engines = [
            SimulatedEngine(rates, room, sync_s, streams=setup.in_flight) for _ in range(setup.rollout_actors)
        ]
        self.lengths = Lengths(rates, seed)
        self.events: list[tuple[float, int, Handler, int, int]] = []
        self.pushed = 0
        self.changes = [0] * setup.rollout_actors
        self.scorers = [0.0] * setup.reward_actors
        # The groups of every submitted batch that are drawn and not trained.
        self.finished: list[list[Group]] = []
        # The batch that is being scored, and how many of its groups the reward actors were given.
        self.scoring = self.scored = 0
        self.step = 0
        self.waits = False
        self.checked_at = 0.0
        self.acknowledged = 0
        self.reward_busy_s = self.learner_busy_s = 0.0
        self.staleness: Counter[int] = Counter()
        self.trained: list[int] = []
        self.ends: list[float] = []

    def run(self, steps: int) -> SimulationResult:
        """Handle events until the last step is synced."""
        filled = self.setup.max_staleness + 1
        before: dict[str, float] = {}
        self._push(0.0, self._on_begin)
        while self.step < steps:
            now, _, handle, which, change = heapq.heappop(self.events)
            handle(now, which, change)
            if len(self.ends) == filled and not before:
                before = self._busy(now)
        now = self.ends[-1]
        span = now - self.ends[filled - 1]
        busy = {kind: seconds - before[kind] for kind, seconds in self._busy(now).items()}
        actors = {
            "rollout": self.setup.rollout_actors,
            "reward": self.setup.reward_actors,
            "learner": self.setup.learner_gpus,
        }
        idle = {kind: max(0.0, 1 - busy[kind] / (n * span)) for kind, n in actors.items()}
        idle["gpu"] = max(0.0, 1 - (busy["rollout"] + busy["learner"]) / (self.setup.gpus * span))
        step_s = span / (steps - filled)
        return SimulationResult(
            self.setup,
            step_s,
            self.setup.prompts_per_step * self.setup.group_size / step_s,
            idle,
            dict(sorted(self.staleness.items())),
            tuple(self.trained),
            self._in_flight(),
        )

    def _in_flight(self) -> tuple[int, ...]:
        groups = [group for batch in self.finished for group in batch]
        groups += [group for engine in self.engines for group in engine.groups]
        return tuple(sorted(group.number for group in groups))

    def _on_begin(self, now: float, *_: int) -> None:
        """A step begins: submit ahead, check the engines' probes, and wait for the step's own batch."""
        while len(self.finished) < self.step + 1 + self.setup.max_staleness:
            self._submit(now)
        self.checked_at = now + self.setup.rollout_actors * self.rates.parity_s
        self.waits = True
        self._learn(now)

    def _submit(self, now: float) -> None:
        setup, batch = self.setup, len(self.finished)
        lengths = self.lengths.batch(batch, setup.prompts_per_step, setup.group_size)
        first = batch * setup.prompts_per_step
        figures = zip(lengths.max(1).tolist(), lengths.sum(1).tolist(), strict=True)
        groups = [Group(first + i, batch, longest, tokens) for i, (longest, tokens) in enumerate(figures)]
        self.finished.append([])
        for i, engine in enumerate(self.engines):
            share = groups[i :: setup.rollout_actors]
            if share:
                engine.submit(now, share)
                self._continue(now, i)

    def _continue(self, now: float, which: int) -> None:
        """Let an engine start what it can, and note when it next finishes a group."""
        engine = self.engines[which]
        for held_at in engine.begin(now):
            self._push(held_at, self._on_held)
        self.changes[which] += 1
        finish = engine.next_finish()
        if finish is not None:
            self._push(finish, self._on_finish, which, self.changes[which])

    def _on_finish(self, now: float, which: int, change: int) -> None:
        """An engine finished groups, unless something has changed its course since this was foreseen."""
        if change != self.changes[which]:
            return
        for group in self.engines[which].finish(now):
            self.finished[group.batch].append(group)
        self._continue(now, which)
        self._score(now)

    def _score(self, now: float) -> None:
        """Give finished groups to the reward actors, batch after batch: the next one when the last is scored."""
        if self.scoring == len(self.finished):
            return
        seconds = self.setup.group_size * self.rates.reward_s_per_completion
        new = len(self.finished[self.scoring]) - self.scored
        for _ in range(new):
            heapq.heapreplace(self.scorers, max(now, self.scorers[0]) + seconds)
        self.reward_busy_s += new * seconds
        self.scored += new
        if new and self.scored == self.setup.prompts_per_step:
            self._push(max(now, *self.scorers), self._on_scored)

    def _on_scored(self, now: float, *_: int) -> None:
        """A batch is scored, and the next one may be."""
        self.scoring += 1
        self.scored = 0
        self._score(now)
        self._learn(now)

    def _learn(self, now: float) -> None:
        """The learner takes the batch that is waited for, once it is scored."""
        if not self.waits or self.scoring <= self.step:
            return
        self.waits = False
        tokens = sum(group.tokens for group in self.finished[self.step])
        seconds = learner_seconds(self.rates, self.setup, self.assumed, tokens)
        self.learner_busy_s += seconds * self.setup.learner_gpus
        switches = 2 * self.assumed.switch_s if self.setup.colocated else 0.0
        self._push(max(now, self.checked_at) + seconds + switches, self._on_learned)

    def _on_learned(self, now: float, *_: int) -> None:
        """A new version goes to every engine."""
        groups, self.finished[self.step] = self.finished[self.step], []
        for group in groups:
            self.staleness[self.step - group.version] += self.setup.group_size
        self.trained += sorted(group.number for group in groups)
        self.acknowledged = 0
        for i, engine in enumerate(self.engines):
            engine.take_weights(now, self.step + 1)
            self._continue(now, i)

    def _on_held(self, now: float, *_: int) -> None:
        """An engine holds the weights; when all do, each draws the probe of the parity check."""
        self.acknowledged += 1
        if self.acknowledged == self.setup.rollout_actors:
            self._push(now + self.rates.probe_s, self._on_synced)

    def _on_synced(self, now: float, *_: int) -> None:
        """The step is over."""
        self.ends.append(now)
        self.step += 1
        self._push(now + self.rates.overhead_s, self._on_begin)

    def _push(self, at: float, handle: Handler, which: int = 0, change: int = 0) -> None:
        self.pushed += 1
        heapq.heappush(self.events, (at, self.pushed, handle, which, change))

    def _busy(self, now: float) -> dict[str, float]:
        """Seconds of work by kind of actor so far, all actors of a kind together."""
        for engine in self.engines:
            engine.advance(now)
        rollout = sum(engine.busy_s for engine in self.engines)
        return {"rollout": rollout, "reward": self.reward_busy_s, "learner": self.learner_busy_s}
