"""Discrete-event simulation of the training loop: step time, idle fractions, staleness of samples."""

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
"""Event handler; arguments: time, engine index, and the schedule version of the engine when the event was pushed."""


@dataclass(frozen=True)
class Setup:
    """Resources and batch settings of a training loop.

    ``in_flight``: engines start groups of any submitted batch as slots become free, and load weights between two
    iterations; otherwise they process batches and weight updates in order of submission. ``colocated``: engines and
    learner alternate on the same GPUs, so ``rollout_actors`` equals ``learner_gpus`` and ``max_staleness`` is 0.
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
        """The loop of a run configuration."""
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
            raise ValueError(f"colocated: expected rollout_actors == learner_gpus and max_staleness == 0, found {self}")

    @property
    def gpus(self) -> int:
        """Total number of GPUs of engines and learner."""
        return self.rollout_actors if self.colocated else self.rollout_actors + self.learner_gpus


class Assumed(BaseModel):
    """Assumptions about costs that a single machine or the records of a run cannot provide."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    learner_efficiency: float = Field(
        0.95, gt=0, le=1, description="fraction of per-GPU learner speed kept at each doubling of its GPUs"
    )
    sync_growth: float = Field(0.1, ge=0, description="relative increase of sync time at each doubling of the engines")
    switch_s: float = Field(1.0, ge=0, description="seconds to switch colocated GPUs between engines and learner")
    sequences: int = Field(256, ge=1, description="completions that an engine generates concurrently")

    def max_concurrent_groups(self, group_size: int) -> int:
        """Groups that an engine generates concurrently."""
        return max(1, self.sequences // group_size)


@dataclass(frozen=True)
class SimulationResult:
    """Result of a simulated run; times exclude the first steps, in which the pipeline fills.

    ``idle``: idle fraction in [0, 1] of the actors by kind (``rollout``, ``reward``, ``learner``) and of the GPUs
    (``gpu``). ``staleness``: number of trained samples per staleness, the learner's weight version minus the version
    that started the sample. ``trained`` and ``in_flight``: numbers of groups, counted from 0 in order of submission.
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
    """Simulate the loop; setups with the same batch and seed get the same completion lengths.

    Raises:
        ValueError: ``steps`` is less than ``max_staleness`` + 3.
    """
    if steps < setup.max_staleness + 3:
        raise ValueError(
            f"max_staleness={setup.max_staleness}: expected at least {setup.max_staleness + 3} steps, found {steps}"
        )
    return _Loop(rates, setup, assumed or Assumed(), seed).run(steps)


def learner_seconds(rates: Rates, setup: Setup, assumed: Assumed, tokens: float) -> float:
    """Seconds of a learner step over ``tokens`` tokens, for the GPU with the most groups and with scaling losses."""
    work = setup.prompts_per_step * rates.learner_s_per_group + tokens * rates.learner_s_per_token
    fraction = math.ceil(setup.prompts_per_step / setup.learner_gpus) / setup.prompts_per_step * rates.learner_gpus
    return work * fraction / assumed.learner_efficiency ** math.log2(setup.learner_gpus / rates.learner_gpus)


def sync_seconds(rates: Rates, setup: Setup, assumed: Assumed) -> float:
    """Seconds of a weight sync to all engines, once they are ready to receive."""
    doublings = math.log2(setup.rollout_actors / rates.rollout_actors)
    return rates.sync_s * (1 + assumed.sync_growth * max(0.0, doublings))


def reward_seconds(rates: Rates, setup: Setup) -> float:
    """Seconds to score a batch whose groups all finish at the same time."""
    groups = math.ceil(setup.prompts_per_step / setup.reward_actors)
    return groups * setup.group_size * rates.reward_s_per_completion


class Lengths:
    """Samples completion lengths: a measured group per prompt, and ``group_size`` lengths from it with replacement."""

    def __init__(self, rates: Rates, seed: int) -> None:
        self.seed = seed
        self._flat = np.concatenate([np.array(group) for group in rates.completion_tokens])
        self._sizes = np.array([len(group) for group in rates.completion_tokens])
        self._starts = np.cumsum(self._sizes) - self._sizes

    def batch(self, number: int, prompts: int, group_size: int) -> np.ndarray:
        """Completion lengths of a batch in tokens, [prompts, group_size]."""
        rng = np.random.default_rng([self.seed, number])
        groups = rng.integers(0, len(self._sizes), prompts)
        members = rng.random((prompts, group_size)) * self._sizes[groups, None]
        return self._flat[self._starts[groups, None] + members.astype(int)]


class _Loop:
    """Simulated driver and engines; events are a heap of (time, sequence number, handler, engine, schedule version)."""

    def __init__(self, rates: Rates, setup: Setup, assumed: Assumed, seed: int) -> None:
        self.rates, self.setup, self.assumed = rates, setup, assumed
        max_groups = assumed.max_concurrent_groups(setup.group_size)
        sync_s = sync_seconds(rates, setup, assumed)
        self.engines = [
            SimulatedEngine(rates, max_groups, sync_s, streams=setup.in_flight) for _ in range(setup.rollout_actors)
        ]
        self.lengths = Lengths(rates, seed)
        self.events: list[tuple[float, int, Handler, int, int]] = []
        self.pushed = 0
        # Incremented whenever an engine is rescheduled; events with an older version are outdated.
        self.schedule_versions = [0] * setup.rollout_actors
        self.reward_free_at = [0.0] * setup.reward_actors
        # For every submitted batch, the groups that are generated but not trained yet.
        self.finished: list[list[Group]] = []
        # The batch that is being scored, and how many of its groups were passed to reward actors.
        self.scoring = self.scored = 0
        self.step = 0
        self.awaiting_batch = False
        self.parity_done_at = 0.0
        self.acknowledged = 0
        self.reward_busy_s = self.learner_busy_s = 0.0
        self.staleness: Counter[int] = Counter()
        self.trained: list[int] = []
        self.ends: list[float] = []

    def run(self, steps: int) -> SimulationResult:
        """Process events until the last step is synced."""
        filled = self.setup.max_staleness + 1
        busy_before: dict[str, float] = {}
        self._push(0.0, self._on_begin)
        while self.step < steps:
            now, _, handle, engine, version = heapq.heappop(self.events)
            handle(now, engine, version)
            if len(self.ends) == filled and not busy_before:
                busy_before = self._busy(now)
        now = self.ends[-1]
        span = now - self.ends[filled - 1]
        busy = {kind: seconds - busy_before[kind] for kind, seconds in self._busy(now).items()}
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
        """Begin a step: submit batches ahead, check parity, and wait for the scored batch of the step."""
        while len(self.finished) < self.step + 1 + self.setup.max_staleness:
            self._submit(now)
        self.parity_done_at = now + self.setup.rollout_actors * self.rates.parity_s
        self.awaiting_batch = True
        self._learn(now)

    def _submit(self, now: float) -> None:
        setup, batch = self.setup, len(self.finished)
        lengths = self.lengths.batch(batch, setup.prompts_per_step, setup.group_size)
        first = batch * setup.prompts_per_step
        sizes = zip(lengths.max(1).tolist(), lengths.sum(1).tolist(), strict=True)
        groups = [Group(first + i, batch, longest, tokens) for i, (longest, tokens) in enumerate(sizes)]
        self.finished.append([])
        for i, engine in enumerate(self.engines):
            engine_groups = groups[i :: setup.rollout_actors]
            if engine_groups:
                engine.submit(now, engine_groups)
                self._reschedule(now, i)

    def _reschedule(self, now: float, index: int) -> None:
        """Let an engine start queued work, and schedule the event of its next finished group."""
        engine = self.engines[index]
        for loaded_at in engine.begin(now):
            self._push(loaded_at, self._on_weights_loaded)
        self.schedule_versions[index] += 1
        finish = engine.next_finish()
        if finish is not None:
            self._push(finish, self._on_finish, index, self.schedule_versions[index])

    def _on_finish(self, now: float, index: int, version: int) -> None:
        """Collect finished groups of an engine; ignores events scheduled before its last change."""
        if version != self.schedule_versions[index]:
            return
        for group in self.engines[index].finish(now):
            self.finished[group.batch].append(group)
        self._reschedule(now, index)
        self._score(now)

    def _score(self, now: float) -> None:
        """Pass finished groups to the reward actors; a batch starts when the previous one is scored."""
        if self.scoring == len(self.finished):
            return
        seconds = self.setup.group_size * self.rates.reward_s_per_completion
        new = len(self.finished[self.scoring]) - self.scored
        for _ in range(new):
            heapq.heapreplace(self.reward_free_at, max(now, self.reward_free_at[0]) + seconds)
        self.reward_busy_s += new * seconds
        self.scored += new
        if new and self.scored == self.setup.prompts_per_step:
            self._push(max(now, *self.reward_free_at), self._on_scored)

    def _on_scored(self, now: float, *_: int) -> None:
        """Continue with the next batch after one is scored."""
        self.scoring += 1
        self.scored = 0
        self._score(now)
        self._learn(now)

    def _learn(self, now: float) -> None:
        """Start the learner step once the batch of the step is scored."""
        if not self.awaiting_batch or self.scoring <= self.step:
            return
        self.awaiting_batch = False
        tokens = sum(group.tokens for group in self.finished[self.step])
        seconds = learner_seconds(self.rates, self.setup, self.assumed, tokens)
        self.learner_busy_s += seconds * self.setup.learner_gpus
        switches = 2 * self.assumed.switch_s if self.setup.colocated else 0.0
        self._push(max(now, self.parity_done_at) + seconds + switches, self._on_learned)

    def _on_learned(self, now: float, *_: int) -> None:
        """Send the new weights to every engine."""
        groups, self.finished[self.step] = self.finished[self.step], []
        for group in groups:
            self.staleness[self.step - group.version] += self.setup.group_size
        self.trained += sorted(group.number for group in groups)
        self.acknowledged = 0
        for i, engine in enumerate(self.engines):
            engine.update_weights(now, self.step + 1)
            self._reschedule(now, i)

    def _on_weights_loaded(self, now: float, *_: int) -> None:
        """Count an engine that holds the new weights; once all do, they generate the parity probe."""
        self.acknowledged += 1
        if self.acknowledged == self.setup.rollout_actors:
            self._push(now + self.rates.probe_s, self._on_synced)

    def _on_synced(self, now: float, *_: int) -> None:
        """End the step."""
        self.ends.append(now)
        self.step += 1
        self._push(now + self.rates.overhead_s, self._on_begin)

    def _push(self, at: float, handle: Handler, engine: int = 0, version: int = 0) -> None:
        self.pushed += 1
        heapq.heappush(self.events, (at, self.pushed, handle, engine, version))

    def _busy(self, now: float) -> dict[str, float]:
        """Busy seconds so far per kind of actor, summed over its actors."""
        for engine in self.engines:
            engine.advance(now)
        rollout = sum(engine.busy_s for engine in self.engines)
        return {"rollout": rollout, "reward": self.reward_busy_s, "learner": self.learner_busy_s}
