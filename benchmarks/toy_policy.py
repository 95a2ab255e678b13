"""A trainable policy with one parameter: engines and a learner of negligible cost, to test everything around them.

It answers correctly with probability sigmoid(theta). The real rewards score its completions. Each sample has a unique
number, which the engine logs when it generates the sample.
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
"""Seconds to generate a group."""
GENERATED = "generated"
"""Folder in the run directory with one file per engine, which lists the numbers of its samples."""


@dataclass(frozen=True)
class ToyWeights:
    """The weights of a version."""

    version: int
    theta: float


class ToyEngine:
    """Generates correct and wrong answers; logs the samples of submitted batches below `GENERATED`."""

    def __init__(self, folder: Path, group_size: int) -> None:
        self.group_size = group_size
        self.identity = uuid.uuid4().hex
        self.version = 0
        self._rng = random.Random(self.identity)
        self._weights = ToyWeights(0, THETA)
        self._lock = threading.Lock()
        (folder / GENERATED).mkdir(parents=True, exist_ok=True)
        self._log = (folder / GENERATED / self.identity).open("a", buffering=1)

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[list[SampleGroup]]:
        """One group per prompt, yielded one at a time."""
        for prompt in prompts:
            time.sleep(GROUP_S)
            group = self._group(prompt, self.group_size)
            with self._lock:
                self._log.writelines(f"{number(sample)}\n" for sample in group.samples)
            yield [group]

    def generate(
        self, prompts: Sequence[Prompt], *, group_size: int | None = None, max_tokens: int = 3, greedy: bool = False
    ) -> list[SampleGroup]:
        """One group per prompt."""
        return [self._group(prompt, group_size or self.group_size) for prompt in prompts]

    def endpoint(self, host: str) -> str:
        """The address of the node, since weights need no connection."""
        return host

    def receive(self, weights: ToyWeights) -> int:
        """Receive new weights."""
        self._weights, self.version = weights, weights.version
        return self.version

    def _group(self, prompt: Prompt, size: int) -> SampleGroup:
        weights = self._weights
        return SampleGroup(prompt, tuple(self._sample(prompt, weights) for _ in range(size)))

    def _sample(self, prompt: Prompt, weights: ToyWeights) -> Sample:
        correct = self._rng.random() < sigmoid(weights.theta)
        ids = (int(correct), self._rng.getrandbits(30), self._rng.getrandbits(30))
        text = demonstration(prompt.example) if correct else WRONG
        return Sample(ids, (logprob(correct, weights.theta), 0.0, 0.0), text, "stop", weights.version)


class ToyRolloutActor(RolloutActor):
    """The rollout actor with a `ToyEngine`."""

    def __init__(self, config: Config, model: Path) -> None:
        start_monitoring(config.run)
        self.engine = ToyEngine(config.run.folder, config.rollout.group_size)  # type: ignore[assignment]

    def identity(self) -> str:
        """The name of the engine's file below `GENERATED`."""
        return self.engine.identity  # type: ignore[attr-defined]


class ToyLearner:
    """Policy-gradient ascent on theta; every rank computes the full update."""

    def __init__(self, lr: float, rank: int) -> None:
        self.lr = lr
        self.rank = rank
        self.version = 0
        self.theta = THETA

    def step(self, groups: Sequence[SampleGroup], upcoming: Sequence[Prompt] = ()) -> dict[str, float]:
        """One update; increments the version."""
        gradient = 0.0
        for group in groups:
            advantages = np.array(group.rewards) - np.mean(group.rewards)
            gradient += float(np.mean(advantages * [s.token_ids[0] - sigmoid(self.theta) for s in group.samples]))
        self.theta += self.lr * gradient / len(groups)
        self.version += 1
        return {"learner/tokens": float(sum(len(s.token_ids) for g in groups for s in g.samples))}

    def problems(self, prompts: Sequence[Prompt]) -> dict[int, str]:
        """None: nothing is encoded."""
        return {}

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        """Log-probs of every sample's tokens."""
        return [np.array([logprob(bool(s.token_ids[0]), self.theta), 0, 0]) for g in groups for s in g.samples]

    def weights(self, endpoints: Sequence[Any]) -> Iterator[ToyWeights]:
        """The current weights, from rank 0 only."""
        if self.rank == 0:
            yield ToyWeights(self.version, self.theta)

    def save(self, folder: Path) -> None:
        """Save the state."""
        if self.rank == 0:
            (folder / "state.json").write_text(json.dumps({"version": self.version, "theta": self.theta}))
            # Large enough that checkpoints fill a small disk.
            (folder / "weights").write_bytes(os.urandom(2**20))

    def saved(self) -> bool:
        """Always True: `save` is synchronous."""
        return True

    def load(self, folder: Path) -> None:
        """Restore the state."""
        state = json.loads((folder / "state.json").read_text())
        self.version, self.theta = state["version"], state["theta"]


class ToyLearnerActor(LearnerActor):
    """The learner actor with a `ToyLearner`."""

    def start(self, config: Config, model: Path, rank: int, size: int, address: str) -> None:
        """Create the learner; its ranks do not communicate."""
        start_monitoring(config.run)
        self.learner = ToyLearner(config.learner.lr, rank)  # type: ignore[assignment]


def number(sample: Sample) -> int:
    """The unique number of a sample."""
    return sample.token_ids[1] << 30 | sample.token_ids[2]


def sigmoid(theta: float) -> float:
    """The probability of a correct answer."""
    return 1 / (1 + math.exp(-theta))


def logprob(correct: bool, theta: float) -> float:
    """The log-prob of an answer."""
    return math.log(sigmoid(theta if correct else -theta))
