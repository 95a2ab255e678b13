"""geovlm_ray's side of `benchmarks.versus_trl`: the training loop, on Ray or in one process."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection

from geovlm_ray.config import load_config
from geovlm_ray.core.interfaces import TRAINED, Components, GroupsByStatus, RewardPool
from geovlm_ray.core.schema import RewardScore, SampleGroup
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.data.sampler import PromptSampler
from geovlm_ray.training.loop import train
from geovlm_ray.training.preflight import prepare

MEASURED_STEPS = 2


def serve(pipe: Connection, recipe: str, overrides: list[str], on_ray: bool) -> None:
    """Serve a `Contender`: a request is the staleness, the response is samples/s."""
    silence_third_party_logs()
    loop = Loop(recipe, overrides, on_ray)
    request = 0
    while request is not None:
        pipe.send(loop.samples_per_second(request))
        request = pipe.recv()
    loop.close()


class Loop:
    """A run that is continued a few steps at a time."""

    def __init__(self, recipe: str, overrides: list[str], on_ray: bool) -> None:
        if on_ray:
            from actors.cluster import build
        else:
            from geovlm_ray.training.local import build
        self.recipe = recipe
        self.overrides = overrides
        config = load_config(recipe, overrides)
        ready = prepare(config)
        self.steps = Steps(config.rollout.max_tokens)
        built: Components = build(config, ready)
        self.components = replace(built, rewards=TextRewards(built.rewards), recorder=self.steps)
        self.prompts = PromptSampler(ready.stream, config.data, config.rollout.prompts_per_step)
        self.done = 0

    def samples_per_second(self, staleness: int) -> float:
        """Rate of a few steps, without the first and without the last ones, during which no rollout is in flight."""
        last = self.done + 1 + MEASURED_STEPS + staleness
        settings = [f"loop.max_staleness={staleness}", f"run.steps={last}"]
        self.steps.ended.clear()
        train(load_config(self.recipe, [*self.overrides, *settings]), self.components, self.prompts, self.done)
        self.done = last
        return MEASURED_STEPS * self.steps.samples / (self.steps.ended[MEASURED_STEPS] - self.steps.ended[0])

    @property
    def samples(self) -> int:
        """Number of samples of the last step."""
        return self.steps.samples

    def close(self) -> None:
        """Stop the actors."""
        self.components.rollouts.close()
        self.components.rewards.close()


class TextRewards:
    """A reward pool that replaces all rewards by `text_reward`, so that no group lacks reward variance."""

    def __init__(self, pool: RewardPool) -> None:
        self.pool = pool

    def score_stream(self, parts: Iterable[Sequence[SampleGroup]]) -> list[SampleGroup]:
        """All groups, sorted and scored."""
        return [_with_text_rewards(group) for group in self.pool.score_stream(parts)]

    def score(self, groups: Sequence[SampleGroup]) -> list[SampleGroup]:
        """The groups, scored."""
        return [_with_text_rewards(group) for group in self.pool.score(groups)]

    def close(self) -> None:
        """Stop the wrapped pool."""
        self.pool.close()


class Steps:
    """A recorder of step end times and sample counts; every completion must have the maximum length."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.samples = 0
        self.ended: list[float] = []

    def log_step(self, step: int, metrics: dict[str, float], groups_by_status: GroupsByStatus) -> None:
        """Record a step.

        Raises:
            RuntimeError: a completion is shorter, or was not trained on.
        """
        self.ended.append(time.perf_counter())
        lengths = [len(sample.token_ids) for group in groups_by_status[TRAINED] for sample in group.samples]
        check_lengths(lengths, self.tokens)
        if metrics["learner/tokens"] != sum(lengths):
            raise RuntimeError(
                f"step {step}: generated {sum(lengths)} tokens, trained on {metrics['learner/tokens']:.0f}"
            )
        self.samples = len(lengths)


def text_reward(text: str) -> float:
    """A reward in [0, 1] that differs between texts."""
    return zlib.crc32(text.encode()) / 2**32


def check_lengths(lengths: Sequence[int], expected: int) -> None:
    """Raise RuntimeError if a completion does not have the expected length."""
    if set(lengths) != {expected}:
        raise RuntimeError(f"expected completions of {expected} tokens, found {min(lengths)} to {max(lengths)}")


def _with_text_rewards(group: SampleGroup) -> SampleGroup:
    return replace(
        group,
        samples=tuple(replace(s, reward=RewardScore(text_reward(s.text), 0.0, 0.0)) for s in group.samples),
    )
