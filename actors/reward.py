"""The reward pool: CPU actors that score in parallel, and one that embeds texts for them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import ray

from actors.failures import fetch, never_ran
from actors.names import next_name
from actors.options import actor_options, not_started, start_limit_s
from actors.tracing import start_monitoring, trace_call
from geovlm_ray.config import Config, RunConfig
from geovlm_ray.core.errors import LostError, RunError
from geovlm_ray.core.schema import RewardScore, SampleGroup
from geovlm_ray.data.sampler import step_of
from geovlm_ray.observability.heartbeat import HEARTBEAT, remove_heartbeats
from geovlm_ray.rewards import Embedder, RewardConfig, needs_embedder
from geovlm_ray.rewards.config import SbertConfig
from geovlm_ray.rewards.groups import score_groups
from geovlm_ray.rewards.sbert import SbertEmbedder

log = logging.getLogger(__name__)

CHUNK = 256
"""Samples of one call, about: no more than these are scored again where an actor dies."""
DEATHS = 3
"""Samples at which so many actors died are what kills them."""


class SbertDeathError(LostError):
    """The SBERT actor died while a reward actor waited for it."""


class SbertActor:
    """Sentence embeddings, on a GPU where one is given."""

    def __init__(self, config: SbertConfig, run: RunConfig) -> None:
        start_monitoring(run)
        with trace_call("start"):
            self.embedder = SbertEmbedder.from_config(config)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of texts, [n, d] fp32."""
        with trace_call("encode", len(texts)):
            vectors = self.embedder.encode(texts)
        HEARTBEAT.count(len(texts))
        return vectors


class RemoteEmbedder:
    """The SBERT actor as an `Embedder`."""

    def __init__(self, actor: ray.actor.ActorHandle) -> None:
        self.actor = actor

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of texts, [n, d] fp32.

        Raises:
            SbertDeathError: the actor died.
        """
        try:
            return fetch([self.actor.encode.remote(list(texts))], "the SBERT actor")[0]
        except LostError as error:
            raise SbertDeathError(str(error)) from error


class RewardActor:
    """Scores whole groups. Only the scores are sent back: the samples are much larger, and known there."""

    def __init__(self, config: RewardConfig, run: RunConfig, prompts_per_step: int) -> None:
        self.config = config
        self.prompts_per_step = prompts_per_step
        start_monitoring(run)

    def score(self, groups: Sequence[SampleGroup], sbert: ray.actor.ActorHandle | None) -> list[list[RewardScore]]:
        """The reward of every sample of every group."""
        embedder: Embedder | None = RemoteEmbedder(sbert) if sbert is not None else None
        samples = sum(len(group.samples) for group in groups)
        HEARTBEAT.step = min(step_of(group.group_id, self.prompts_per_step) for group in groups)
        log.debug("scores %d samples", samples)
        with trace_call("score", samples):
            scored = score_groups(groups, self.config, embedder)
        HEARTBEAT.count(samples)
        return [[sample.reward for sample in group.samples if sample.reward is not None] for group in scored]


@dataclass
class _Chunk:
    """Groups of one call, and how many actors died while they were scored."""

    groups: list[SampleGroup]
    deaths: int = 0


@dataclass
class _Call:
    """A chunk on its way through an actor, with the actors that it needs."""

    chunk: _Chunk
    slot: int
    actor: ray.actor.ActorHandle
    sbert: ray.actor.ActorHandle | None


class RayRewards:
    """All reward actors as one pool; one that dies is replaced, and what it was scoring is scored again.

    Several threads may score at once.
    """

    def __init__(self, config: Config, tasks: Sequence[str]) -> None:
        self.config = config
        self._replacing = threading.Lock()
        self._closed = False
        self._names: dict[ray.actor.ActorHandle, str] = {}
        # What those that are not known to have started answer once they have.
        self._starting: dict[ray.actor.ActorHandle, ray.ObjectRef] = {}
        embeds = any(needs_embedder(task, config.reward) for task in tasks)
        self.sbert = self._start_sbert() if embeds else None
        self.actors = [self._start() for _ in range(config.placement.reward.actors)]

    def score(self, groups: Sequence[SampleGroup]) -> list[SampleGroup]:
        """The same groups in the same order, every sample with its reward.

        Raises:
            RunError: actors died `DEATHS` times at the same groups, or one failed in another way.
            LostError: none has started within `start_limit_s`.
        """
        scored = {g.group_id: g for g in self.score_stream([groups])}
        return [scored[g.group_id] for g in groups]

    def score_stream(self, parts: Iterable[Sequence[SampleGroup]]) -> list[SampleGroup]:
        """All groups, sorted, every sample with its reward; the first are scored while the last are still drawn.

        Raises:
            RunError: as in `score`, or as the drawing raises it.
        """
        scored: list[SampleGroup] = []
        waiting: deque[_Chunk] = deque()
        running: dict[ray.ObjectRef, _Call] = {}
        for part in parts:
            waiting.extend(self._chunks(part))
            self._dispatch(waiting, running)
            while waiting:
                scored += self._take(waiting, running)
        while running:
            scored += self._take(waiting, running)
        return sorted(scored, key=lambda g: g.group_id)

    def _dispatch(self, waiting: deque[_Chunk], running: dict[ray.ObjectRef, _Call]) -> None:
        """Give chunks to actors that have started and have none of this batch; waits for one where nothing runs."""
        if not waiting:
            return
        wait = not running
        sbert, actors = self.sbert, list(self.actors)
        if sbert is not None and not self._started([sbert], "the SBERT actor has not started", wait):
            return
        busy = {call.slot for call in running.values()}
        idle = set(self._started(actors, "no reward actor has started", wait)) - busy
        for slot in sorted(idle)[: len(waiting)]:
            call = _Call(waiting.popleft(), slot, actors[slot], sbert)
            running[call.actor.score.remote(call.chunk.groups, call.sbert)] = call

    def _take(self, waiting: deque[_Chunk], running: dict[ray.ObjectRef, _Call]) -> list[SampleGroup]:
        """The groups of the next call that ends; none where an actor died at it, and they wait again."""
        (done,), _ = ray.wait(list(running))
        call = running.pop(done)
        try:
            rewards = fetch([done], "a reward actor")[0]
            groups = [_rewarded(group, scores) for group, scores in zip(call.chunk.groups, rewards, strict=True)]
        except LostError as error:
            self._replace_dead(error, call)
            call.chunk.deaths += not never_ran(error)
            if call.chunk.deaths == DEATHS:
                ids = ", ".join(str(g.group_id) for g in call.chunk.groups)
                raise RunError(f"{DEATHS} actors died while they scored groups {ids}; the last: {error}") from error
            waiting.appendleft(call.chunk)
            groups = []
        self._dispatch(waiting, running)
        return groups

    def _started(self, actors: Sequence[ray.actor.ActorHandle], otherwise: str, wait: bool) -> list[int]:
        """Which of some actors have started; waits for the first where asked.

        Raises:
            LostError: it was waited for, and none has started within `start_limit_s`.
        """
        starting = {ref: actor for actor in actors if (ref := self._starting.get(actor)) is not None}
        if starting:
            if wait and len(starting) == len(actors):
                ray.wait(list(starting), timeout=start_limit_s(self.config))
            for ref in ray.wait(list(starting), num_returns=len(starting), timeout=0)[0]:
                self._starting.pop(starting[ref], None)
        started = [slot for slot, actor in enumerate(actors) if actor not in self._starting]
        if wait and not started:
            raise not_started(self.config, otherwise)
        return started

    def close(self) -> None:
        """End the actors; none takes their place."""
        with self._replacing:
            self._closed = True
            for actor in [*self.actors, *([self.sbert] if self.sbert is not None else [])]:
                ray.kill(actor)

    def _chunks(self, groups: Sequence[SampleGroup]) -> list[_Chunk]:
        """Groups dealt out by task, so that every chunk has a share of each; at least one chunk an actor."""
        by_task = sorted(groups, key=lambda g: g.prompt.example.task)
        samples = sum(len(g.samples) for g in groups)
        n = min(max(len(self.actors), -(-samples // CHUNK)), len(groups))
        return [_Chunk(by_task[k::n]) for k in range(n)]

    def _replace_dead(self, error: LostError, call: _Call) -> None:
        """Start another actor in place of the one whose death an error tells of, unless that was done already."""
        with self._replacing:
            if self._closed:
                raise error
            if isinstance(error, SbertDeathError):
                if call.sbert is self.sbert:
                    self._end(call.sbert, error)
                    self.sbert = self._start_sbert()
            elif call.actor is self.actors[call.slot]:
                self._end(call.actor, error)
                self.actors[call.slot] = self._start()

    def _end(self, actor: ray.actor.ActorHandle, error: RunError) -> None:
        name = self._names.pop(actor)
        self._starting.pop(actor, None)
        log.warning("%s: %s; another one takes its place", name, error)
        ray.kill(actor)
        remove_heartbeats(self.config.run.folder, name)

    def _start(self) -> ray.actor.ActorHandle:
        config, name = self.config, next_name("reward")
        actor = ray.remote(RewardActor).options(**actor_options(config, "reward", name))
        return self._named(name, actor.remote(config.reward, config.run, config.rollout.prompts_per_step))

    def _start_sbert(self) -> ray.actor.ActorHandle:
        config, name = self.config, next_name("sbert")
        sbert = config.reward.sbert
        if config.placement.sbert.num_gpus:
            sbert = sbert.model_copy(update={"device": "cuda"})
        actor = ray.remote(SbertActor).options(**actor_options(config, "sbert", name))
        return self._named(name, actor.remote(sbert, config.run))

    def _named(self, name: str, actor: ray.actor.ActorHandle) -> ray.actor.ActorHandle:
        self._names[actor] = name
        self._starting[actor] = actor.__ray_ready__.remote()
        return actor


def _rewarded(group: SampleGroup, scores: Sequence[RewardScore]) -> SampleGroup:
    """The group, every sample with its reward."""
    samples = zip(group.samples, scores, strict=True)
    return replace(group, samples=tuple(replace(sample, reward=score) for sample, score in samples))
