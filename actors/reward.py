"""The reward pool: CPU actors that score in parallel, and the SBERT actor that embeds texts for them."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import ray

from actors.failures import died_before_start, fetch
from actors.options import hide_other_gpus
from actors.placement import Reservation
from actors.slots import ActorSlots
from actors.tracing import start_monitoring, trace_call
from geovlm_ray.config import Config, RunConfig
from geovlm_ray.core.errors import LostError, RunError
from geovlm_ray.core.schema import RewardScore, SampleGroup
from geovlm_ray.data.sampler import step_of
from geovlm_ray.observability.heartbeat import HEARTBEAT
from geovlm_ray.rewards import Embedder, needs_embedder
from geovlm_ray.rewards.config import SbertConfig, is_function
from geovlm_ray.rewards.groups import score_groups
from geovlm_ray.rewards.sbert import SbertEmbedder
from geovlm_ray.rewards.score import check_wordnet
from geovlm_ray.tasks.extensions import activate

log = logging.getLogger(__name__)

CHUNK_SAMPLES = 256
"""Approximate number of samples per call; bounds what is rescored after a crash."""
MAX_CRASHES_PER_CHUNK = 3
"""Crashes while scoring one chunk after which its samples are taken to be the cause."""


class SbertDeathError(LostError):
    """The SBERT actor died or stalled during a call of a reward actor."""


class SbertActor:
    """Computes sentence embeddings, on a GPU if it has one."""

    def __init__(self, config: SbertConfig, run: RunConfig) -> None:
        hide_other_gpus()
        start_monitoring(run)
        with trace_call("start"):
            self.embedder = SbertEmbedder.from_config(config)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-length embeddings of texts, [n, d] fp32."""
        with trace_call("encode", len(texts)):
            vectors = self.embedder.encode(texts)
        HEARTBEAT.count(len(texts))
        return vectors


class RemoteEmbedder:
    """An `Embedder` that calls the SBERT actor and waits at most ``limit_s`` seconds for a result."""

    def __init__(self, actor: ray.actor.ActorHandle, limit_s: float) -> None:
        self.actor = actor
        self.limit_s = limit_s

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-length embeddings of texts, [n, d] fp32.

        Raises:
            SbertDeathError: the actor died or stalled.
        """
        try:
            return fetch([self.actor.encode.remote(list(texts))], "the SBERT actor", self.limit_s)[0]
        except LostError as error:
            raise SbertDeathError(str(error)) from error


class RewardActor:
    """Scores whole groups; returns only scores, since the caller already holds the much larger samples."""

    def __init__(self, config: Config, tasks: Sequence[str]) -> None:
        self.config = config.reward
        self.prompts_per_step = config.rollout.prompts_per_step
        hide_other_gpus()
        start_monitoring(config.run)
        activate(config)
        check_wordnet(config.reward, tasks)

    def score(
        self, groups: Sequence[SampleGroup], sbert: ray.actor.ActorHandle | None
    ) -> list[tuple[list[RewardScore], str]]:
        """Rewards of the samples of each group, and its problem."""
        embedder: Embedder | None = None
        if sbert is not None:
            # A stalled SBERT actor is noticed before the reward actors that wait for it.
            embedder = RemoteEmbedder(sbert, self.config.stall_s / 2)
        samples = sum(len(group.samples) for group in groups)
        HEARTBEAT.step = min(step_of(group.group_id, self.prompts_per_step) for group in groups)
        log.debug("scoring %d samples", samples)
        with trace_call("score", samples):
            scored = score_groups(groups, self.config, embedder)
        HEARTBEAT.count(samples)
        return [([s.reward for s in group.samples if s.reward is not None], group.problem) for group in scored]


@dataclass
class _Chunk:
    """Groups scored in one call, and the number of actor crashes while scoring them."""

    groups: list[SampleGroup]
    crashes: int = 0


@dataclass
class _Call:
    """A running score call, with the actors that it uses, and the time by which it must return (monotonic seconds)."""

    chunk: _Chunk
    slot: int
    actor: ray.actor.ActorHandle
    sbert: ray.actor.ActorHandle | None
    deadline: float


class RayRewards:
    """All reward actors as one pool; a dead or stalled actor is replaced, and its chunk scored again. Thread-safe."""

    def __init__(self, config: Config, tasks: Sequence[str], reservation: Reservation | None = None) -> None:
        self.config = config.reward
        self.sbert: ActorSlots | None = None
        if any(needs_embedder(task, config.reward) for task in tasks):
            sbert = config.reward.sbert
            if config.placement.sbert.num_gpus:
                sbert = sbert.model_copy(update={"device": "cuda"})
            self.sbert = ActorSlots(config, "sbert", 1, SbertActor, sbert, config.run, reservation=reservation)
        count = config.placement.reward.actors
        self.slots = ActorSlots(config, "reward", count, RewardActor, config, tasks, reservation=reservation)
        self.actors = self.slots.actors

    def score(self, groups: Sequence[SampleGroup]) -> list[SampleGroup]:
        """The same groups in the same order, with the reward of every sample.

        Raises:
            RunError: a chunk reached `MAX_CRASHES_PER_CHUNK`, or a call failed in another way.
            LostError: as in `ActorSlots.ready`.
        """
        scored = {g.group_id: g for g in self.score_stream([groups])}
        return [scored[g.group_id] for g in groups]

    def score_stream(self, parts: Iterable[Sequence[SampleGroup]]) -> list[SampleGroup]:
        """All groups sorted by group id, with the reward of every sample; groups are scored as ``parts`` yields them.

        Raises:
            RunError: as in `score`, or raised by ``parts``.
        """
        scored: list[SampleGroup] = []
        waiting: deque[_Chunk] = deque()
        running: dict[ray.ObjectRef, _Call] = {}
        for part in parts:
            waiting.extend(self._chunks(part))
            self._dispatch(waiting, running)
            while waiting:
                scored += self._next_result(waiting, running)
        while running:
            scored += self._next_result(waiting, running)
        return sorted(scored, key=lambda g: g.group_id)

    def _dispatch(self, waiting: deque[_Chunk], running: dict[ray.ObjectRef, _Call]) -> None:
        """Send chunks to started actors without a call of this batch; waits for an actor if no call is running."""
        if not waiting:
            return
        at_least = 0 if running else 1
        sbert = self.sbert.ready(at_least).get(0) if self.sbert is not None else None
        if self.sbert is not None and sbert is None:
            return
        busy = {call.slot for call in running.values()}
        idle = [(slot, actor) for slot, actor in self.slots.ready(at_least).items() if slot not in busy]
        for slot, actor in idle[: len(waiting)]:
            chunk = waiting.popleft()
            call = _Call(chunk, slot, actor, sbert, time.monotonic() + self._limit_s(chunk))
            running[actor.score.remote(call.chunk.groups, sbert)] = call

    def _next_result(self, waiting: deque[_Chunk], running: dict[ray.ObjectRef, _Call]) -> list[SampleGroup]:
        """Groups of the next call that finishes; none if an actor crashed or stalled, and the chunk is queued again."""
        next_due = min(running, key=lambda ref: running[ref].deadline)
        left = max(running[next_due].deadline - time.monotonic(), 0.0)
        finished, _ = ray.wait(list(running), timeout=left)
        done = finished[0] if finished else next_due
        call = running.pop(done)
        try:
            if not finished:
                raise LostError(f"a reward actor returned nothing within reward.stall_s={self.config.stall_s:g} s")
            rewards = fetch([done], "a reward actor")[0]
            groups = [_rewarded(group, *found) for group, found in zip(call.chunk.groups, rewards, strict=True)]
            self.slots.completed(call.slot)
            if self.sbert is not None:
                self.sbert.completed(0)
        except LostError as error:
            call.chunk.crashes += not died_before_start(error)
            if call.chunk.crashes == MAX_CRASHES_PER_CHUNK:
                ids = ", ".join(str(g.group_id) for g in call.chunk.groups)
                raise RunError(
                    f"{MAX_CRASHES_PER_CHUNK} actors crashed while scoring groups {ids}; last: {error}"
                ) from error
            if isinstance(error, SbertDeathError) and self.sbert is not None:
                self.sbert.replace(0, call.sbert, error)
            else:
                self.slots.replace(call.slot, call.actor, error)
            waiting.appendleft(call.chunk)
            groups = []
        self._dispatch(waiting, running)
        return groups

    def close(self) -> None:
        """Kill the actors without replacement."""
        self.slots.close()
        if self.sbert is not None:
            self.sbert.close()

    def _limit_s(self, chunk: _Chunk) -> float:
        """Seconds that the call of a chunk may take: those of its user functions come on top."""
        forms = {self.config.form(group.prompt.example.task) for group in chunk.groups}
        samples = sum(len(group.samples) for group in chunk.groups)
        return self.config.stall_s + samples * self.config.time_limit_s * any(map(is_function, forms))

    def _chunks(self, groups: Sequence[SampleGroup]) -> list[_Chunk]:
        """Split groups into chunks with the same mix of tasks, if possible at least one per actor."""
        by_task = sorted(groups, key=lambda g: g.prompt.example.task)
        samples = sum(len(g.samples) for g in groups)
        n = min(max(len(self.actors), -(-samples // CHUNK_SAMPLES)), len(groups))
        return [_Chunk(by_task[k::n]) for k in range(n)]


def _rewarded(group: SampleGroup, scores: Sequence[RewardScore], problem: str) -> SampleGroup:
    """The group with the reward of every sample."""
    samples = zip(group.samples, scores, strict=True)
    rewarded = tuple(replace(sample, reward=score) for sample, score in samples)
    return replace(group, samples=rewarded, problem=problem)
