"""The loop's accounting, on plain in-process parts."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geovlm_ray.config import Config, load_config
from geovlm_ray.data.sampler import Sampler, SceneStream
from geovlm_ray.errors import RunError
from geovlm_ray.loop import Parts, train
from geovlm_ray.schema import Prompt, RewardScore, Sample, SampleGroup


class Pool:
    """Draws a batch when it is submitted, with the version that it then holds."""

    def __init__(self, logprob: float = -1.0) -> None:
        self.version = -1
        self.logprob = logprob
        self.drawn: deque[list[SampleGroup]] = deque()
        self.submitted: list[int] = []

    def draw(self, prompts: Sequence[Prompt]) -> list[SampleGroup]:
        return [SampleGroup(p, (Sample((1,), (self.logprob,), "a", "stop", self.version),) * 2) for p in prompts]

    def submit(self, prompts: Sequence[Prompt]) -> None:
        self.submitted += [p.group_id for p in prompts]
        self.drawn.append(self.draw(prompts))

    def collect(self) -> list[SampleGroup]:
        return self.drawn.popleft()

    def generate(self, prompts: Sequence[Prompt], *, greedy: bool) -> list[SampleGroup]:
        return self.draw(prompts)

    def probe(self, prompts: Sequence[Prompt], max_tokens: int) -> list[list[SampleGroup]]:
        return [self.draw(prompts)]

    def update_weights(self, update: Any) -> None:
        self.version = update

    def close(self) -> None: ...


class Rewards:
    """Gives every sample the same reward."""

    def score(self, groups: Sequence[SampleGroup]) -> list[SampleGroup]:
        score = RewardScore(1.0, 1.0, 0.0)
        return [
            dataclasses.replace(g, samples=tuple(dataclasses.replace(s, reward=score) for s in g.samples))
            for g in groups
        ]

    def close(self) -> None: ...


class Learner:
    """Counts its steps."""

    def __init__(self) -> None:
        self.version = 0
        self.trained: list[int] = []

    def step(self, groups: Sequence[SampleGroup]) -> dict[str, float]:
        self.trained += [g.group_id for g in groups]
        self.version += 1
        return {"learner/tokens": 1.0}

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        return [np.array([-1.0]) for g in groups for _ in g.samples]

    def weights(self) -> int:
        return self.version

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...


class Book:
    """Remembers what it is told, as tracker and as checkpointer."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.saved: list[int] = []

    def log_step(self, step: int, metrics: dict[str, float], groups: Sequence[SampleGroup]) -> None:
        self.rows.append({"step": step, **metrics})

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        self.saved.append(step)


def run(*overrides: str, logprob: float = -1.0, start: int = 0) -> tuple[Book, Pool, Learner]:
    config: Config = load_config(
        "demo", ["run.steps=6", "rollout.prompts_per_step=3", "checkpoint.every=4", *overrides]
    )
    book, pool, learner = Book(), Pool(logprob), Learner()
    learner.version = start
    sampler = Sampler(SceneStream(0), config.data, 3)
    parts = Parts(pool, Rewards(), learner, book, book)
    train(config, parts, sampler.batch, sampler.batch(0), start)
    return book, pool, learner


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_samples_are_as_stale_as_allowed_and_no_staler(staleness: int) -> None:
    book, _, learner = run(f"loop.max_staleness={staleness}")
    assert [row["staleness/max"] for row in book.rows] == [min(step, staleness) for step in range(6)]
    assert learner.trained == list(range(18))


def test_nothing_is_drawn_beyond_the_last_step() -> None:
    _, pool, _ = run("loop.max_staleness=3")
    assert pool.submitted == list(range(18))


def test_a_resumed_loop_draws_what_was_not_trained() -> None:
    _, pool, learner = run("loop.max_staleness=1", start=4)
    assert pool.submitted == learner.trained == list(range(12, 18))


def test_checkpoints_come_in_their_rhythm_and_at_the_end() -> None:
    assert run()[0].saved == [4, 6]


def test_engine_and_learner_that_disagree_stop_the_run() -> None:
    with pytest.raises(RunError, match=r"engine 0 and learner disagree.*0\.5.*sync\.parity_tolerance=0\.001"):
        run(logprob=-1.5)


def test_a_log_prob_that_is_no_number_stops_the_run() -> None:
    with pytest.raises(RunError, match="disagree"):
        run(logprob=float("nan"))
