"""A policy of one number that learns: engines and a learner that cost nothing, for everything around them.

It answers right with probability sigmoid(theta). Its completions are real texts that the real rewards score, and each
sample carries a number of its own, which the engine writes down when it draws it.
"""

from __future__ import annotations

import json
import math
import os
import random
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actors.learner import LearnerActor
from actors.rollout import RolloutActor
from actors.tracing import start_monitoring
from geovlm_ray.config import Config
from geovlm_ray.core.schema import Prompt, Sample, SampleGroup
from geovlm_ray.data.scenes import demonstration

THETA = -1.0
WRONG = "<think>a guess</think><answer>none of it</answer>"
GROUP_S = 0.02
"""Seconds that a group takes to be drawn."""
DRAWN = "drawn"
"""Folder of a run with a file of sample numbers for every engine that drew any."""


@dataclass(frozen=True)
class ToyWeights:
    """All weights of a version."""

    version: int
    theta: float


class ToyEngine:
    """Draws right and wrong answers; keeps a list of the samples of submitted batches on the disk."""

    def __init__(self, folder: Path, group_size: int) -> None:
        self.group_size = group_size
        self.identity = uuid.uuid4().hex
        self.version = 0
        self._rng = random.Random(self.identity)
        self._weights = ToyWeights(0, THETA)
        self._lock = threading.Lock()
        (folder / DRAWN).mkdir(parents=True, exist_ok=True)
        self._drawn = (folder / DRAWN / self.identity).open("a", buffering=1)

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[list[SampleGroup]]:
        """A group of each prompt, one at a time."""
        for prompt in prompts:
            time.sleep(GROUP_S)
            group = self._group(prompt, self.group_size)
            with self._lock:
                self._drawn.writelines(f"{number(sample)}\n" for sample in group.samples)
            yield [group]

    def generate(
        self, prompts: Sequence[Prompt], *, group_size: int | None = None, max_tokens: int = 3, greedy: bool = False
    ) -> list[SampleGroup]:
        """A group of each prompt."""
        return [self._group(prompt, group_size or self.group_size) for prompt in prompts]

    def receive(self, weights: ToyWeights) -> int:
        """Take a version."""
        self._weights, self.version = weights, weights.version
        return self.version

    def _group(self, prompt: Prompt, size: int) -> SampleGroup:
        weights = self._weights
        return SampleGroup(prompt, tuple(self._sample(prompt, weights) for _ in range(size)))

    def _sample(self, prompt: Prompt, weights: ToyWeights) -> Sample:
        right = self._rng.random() < sigmoid(weights.theta)
        ids = (int(right), self._rng.getrandbits(30), self._rng.getrandbits(30))
        text = demonstration(prompt.example) if right else WRONG
        return Sample(ids, (logprob(right, weights.theta), 0.0, 0.0), text, "stop", weights.version)


class ToyRolloutActor(RolloutActor):
    """The rollout actor with such an engine."""

    def __init__(self, config: Config, model: Path) -> None:
        start_monitoring(config.run)
        self.engine = ToyEngine(config.run.folder, config.rollout.group_size)  # type: ignore[assignment]

    def identity(self) -> str:
        """The name of its file below `DRAWN`."""
        return self.engine.identity  # type: ignore[attr-defined]


class ToyLearner:
    """Policy-gradient ascent on theta; every rank does the whole of it."""

    def __init__(self, lr: float, rank: int) -> None:
        self.lr = lr
        self.rank = rank
        self.version = 0
        self.theta = THETA

    def step(self, groups: Sequence[SampleGroup]) -> dict[str, float]:
        """One update; the version rises by one."""
        gradient = 0.0
        for group in groups:
            advantages = np.array(group.rewards) - np.mean(group.rewards)
            gradient += float(np.mean(advantages * [s.token_ids[0] - sigmoid(self.theta) for s in group.samples]))
        self.theta += self.lr * gradient / len(groups)
        self.version += 1
        return {"learner/tokens": float(sum(len(s.token_ids) for g in groups for s in g.samples))}

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        """Log-probs of every sample's tokens."""
        return [np.array([logprob(bool(s.token_ids[0]), self.theta), 0, 0]) for g in groups for s in g.samples]

    def weights(self) -> Iterator[ToyWeights]:
        """The present weights, which rank 0 has."""
        if self.rank == 0:
            yield ToyWeights(self.version, self.theta)

    def save(self, folder: Path) -> None:
        """Write the state."""
        if self.rank == 0:
            (folder / "state.json").write_text(json.dumps({"version": self.version, "theta": self.theta}))
            # As much as fills a small disk.
            (folder / "weights").write_bytes(os.urandom(2**20))

    def saved(self) -> bool:
        """Always: `save` returns when it is done."""
        return True

    def load(self, folder: Path) -> None:
        """Take up the state."""
        state = json.loads((folder / "state.json").read_text())
        self.version, self.theta = state["version"], state["theta"]


class ToyLearnerActor(LearnerActor):
    """The learner actor with such a learner."""

    def weights(self) -> Iterator[Any]:
        """The present weights, which need no packing."""
        yield from self.learner.weights()

    def start(self, config: Config, model: Path, rank: int, size: int, address: str) -> None:
        """Make the learner; its ranks do not need one another."""
        start_monitoring(config.run)
        self.learner = ToyLearner(config.learner.lr, rank)  # type: ignore[assignment]


def number(sample: Sample) -> int:
    """The number that no other sample has."""
    return sample.token_ids[1] << 30 | sample.token_ids[2]


def sigmoid(theta: float) -> float:
    """The probability of a right answer."""
    return 1 / (1 + math.exp(-theta))


def logprob(right: bool, theta: float) -> float:
    """The log-prob of an answer."""
    return math.log(sigmoid(theta if right else -theta))
