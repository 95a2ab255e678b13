"""The interfaces between the training loop and its components: Ray actors, in-process objects and test doubles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from geovlm_ray.core.schema import Prompt, SampleGroup

TRAINED = "trained"
"""Status of the groups that a step trained on."""

GroupsByStatus = Mapping[str, Sequence[SampleGroup]]
"""The groups generated for a step, keyed by status: `TRAINED`, or the reason they were dropped."""


Weights = Callable[[Sequence[Any]], Iterable[Any]]
"""Yields the chunks of the current weights, for the engines at the given endpoints."""


class Span(NamedTuple):
    """A completed actor call; ``begun`` and ``ended`` in seconds since the epoch."""

    name: str
    begun: float
    ended: float


class RolloutPool(Protocol):
    """Inference engines that sample completions; a group without samples and with a ``problem`` has a bad record."""

    def submit(self, prompts: Sequence[Prompt], **sampling: Any) -> Iterable[list[SampleGroup]]:
        """Start sampling a batch with the engines' current weights; yields groups as they complete.

        ``sampling`` may set ``group_size`` and ``greedy``; defaults are those of training.
        """

    def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
        """Sample completions of the prompts and wait for them, independently of submitted batches."""

    def probe(self, prompts: Sequence[Prompt], max_tokens: int) -> list[list[SampleGroup]]:
        """Short completions of the same prompts from every engine, [engines][prompts], for the parity check."""

    def update_weights(self, weights: Weights) -> None:
        """Send the version that ``weights`` yields to every engine; returns after all engines acknowledged it.

        Engines that sleep wake up.
        """

    def sleep(self) -> None:
        """Give back the GPU memory of all engines until the next weights arrive; none may be sampling."""

    def close(self) -> None:
        """Shut the engines down."""


class RewardPool(Protocol):
    """Reward workers; thread-safe."""

    def score_stream(self, parts: Iterable[Sequence[SampleGroup]]) -> list[SampleGroup]:
        """Score groups as they complete; returns all of them sorted by ``group_id``, with rewards."""

    def score(self, groups: Sequence[SampleGroup]) -> list[SampleGroup]:
        """Return the groups with a reward for every sample; with a ``problem`` if the record cannot be scored."""

    def close(self) -> None:
        """Shut the workers down."""


class Saver(Protocol):
    """State that can be saved asynchronously."""

    def save(self, folder: Path) -> None:
        """Start writing the current state into a folder."""

    def saved(self) -> bool:
        """Whether the last `save` is complete; raises OSError if writing failed."""


class Learner(Saver, Protocol):
    """The policy being trained; only the learner increments the weight version."""

    def step(self, groups: Sequence[SampleGroup], upcoming: Sequence[Prompt] = ()) -> dict[str, float]:
        """One policy update; increments the weight version and returns metrics.

        ``upcoming`` are prompts of the next step, which the learner may encode meanwhile.
        """

    def problems(self, prompts: Sequence[Prompt]) -> dict[int, str]:
        """Why prompts cannot be encoded, such as an unreadable image, keyed by group id; waits for their encoding."""

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        """Log-probs of the tokens that the policy wrote, under the current weights, [samples][tokens]."""

    def weights(self, endpoints: Sequence[Any]) -> Iterable[Any]:
        """The current weights, in chunks for the engines at ``endpoints``, which `RolloutPool.update_weights` knows."""

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote."""

    def close(self) -> None:
        """Shut the learner down."""


class Prompts(Protocol):
    """The prompt sampler."""

    def batch(self, step: int) -> list[Prompt]:
        """The prompts of a step, counted from 0."""

    def replacement(self, prompt: Prompt, attempt: int) -> Prompt:
        """Another prompt of the same task."""

    def set_aside(self, prompt: Prompt, reason: str) -> Prompt:
        """Set the record of a prompt aside; returns the prompt with another record of the task.

        Raises:
            DataError: too many records are bad.
        """


class Recorder(Protocol):
    """Records metrics and completions."""

    def log_step(self, step: int, metrics: dict[str, float], groups_by_status: GroupsByStatus) -> str | None:
        """Record one step and all groups that were generated for it; returns why the run is to end, if it is."""


class Checkpointer(Protocol):
    """Writes checkpoints."""

    def save(self, step: int, saver: Saver, metrics: Mapping[str, float]) -> None:
        """Checkpoint the state after a step asynchronously, with its metrics."""

    def finish(self) -> None:
        """Wait until the last checkpoint is complete."""


class Evaluator(Protocol):
    """Benchmark evaluations that run concurrently with training."""

    def due(self, step: int) -> bool:
        """Whether the weights after a step are to be evaluated."""

    def begin(self, step: int) -> None:
        """Start evaluating the engines' current weights, those after a step."""

    def results(self) -> dict[str, float]:
        """Metrics of the evaluations that completed since the last call."""

    def finish(self) -> None:
        """Wait for running evaluations."""

    def close(self) -> None:
        """Abandon running evaluations."""


Report = Callable[[dict[str, float]], None]
"""Callback that receives the metrics of every step."""
Timeline = Callable[[float, float], dict[str, list[Span]]]
"""Returns the calls of every actor, keyed by actor name, between two times in seconds since the epoch."""


class NoRecords:
    """Recorder and checkpointer that write nothing."""

    def log_step(self, step: int, metrics: dict[str, float], groups_by_status: GroupsByStatus) -> None:
        """Write nothing."""

    def save(self, step: int, saver: Saver, metrics: Mapping[str, float]) -> None:
        """Write nothing."""

    def finish(self) -> None:
        """Wait for nothing."""


@dataclass(frozen=True)
class Components:
    """Everything that the training loop drives.

    A backend (one process or a Ray cluster) builds the first five; ``report`` receives each step's metrics and
    ``timeline`` returns the calls of remote actors, if the backend has any. ``release`` gives back what it reserved.
    """

    rollouts: RolloutPool
    rewards: RewardPool
    learner: Learner
    report: Report | None = None
    timeline: Timeline | None = None
    recorder: Recorder = field(default_factory=NoRecords)
    checkpoints: Checkpointer = field(default_factory=NoRecords)
    evaluator: Evaluator | None = None
    release: Callable[[], None] = lambda: None

    def close(self) -> None:
        """Abandon evaluations, shut the pools and the learner down, and give back what was reserved for them."""
        if self.evaluator:
            self.evaluator.close()
        for component in (self.rollouts, self.rewards, self.learner):
            component.close()
        self.release()
