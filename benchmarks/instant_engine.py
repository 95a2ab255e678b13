"""A rollout actor whose engine answers instantly; neither imports torch."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from actors.rollout import RolloutActor
from geovlm_ray.config import Config
from geovlm_ray.core.schema import Prompt, Sample, SampleGroup

TOKENS = 100
VOCABULARY = 151_000
ANSWERS = {
    "vqa": ("Yes", "No"),
    "referred_object_detection": ("[10, 20, 30, 40]", "[5, 60, 25, 75]"),
    "region_captioning": ("1 ship at the left", "1 bridge at the top"),
}
THOUGHT = 280
"""Characters of reasoning before the answer, about four per token."""
COMPLETIONS = 256
"""Pre-generated completions, returned in rotation, so that no object occurs twice within one message."""


class InstantEngine:
    """Returns pre-generated completions of realistic size, group by group, like a real engine."""

    def __init__(self, group_size: int, seed: int = 0) -> None:
        rng = random.Random(seed)
        self.group_size = group_size
        self.version = 0
        self._completions = itertools.cycle([_completion(rng) for _ in range(COMPLETIONS)])

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[list[SampleGroup]]:
        """One group per prompt, yielded one at a time."""
        for prompt in prompts:
            yield [self._group(prompt, self.group_size, TOKENS)]

    def generate(
        self, prompts: Sequence[Prompt], *, group_size: int | None = None, max_tokens: int = TOKENS
    ) -> list[SampleGroup]:
        """One group per prompt."""
        return [self._group(prompt, group_size or self.group_size, max_tokens) for prompt in prompts]

    def endpoint(self, host: str) -> str:
        """The address of the node, since weights need no connection."""
        return host

    def receive(self, version: int) -> int:
        """Receive weights, which consist of their version only."""
        self.version = version
        return version

    def _group(self, prompt: Prompt, size: int, tokens: int) -> SampleGroup:
        answers = ANSWERS[prompt.example.task]
        return SampleGroup(prompt, tuple(self._sample(answers[k % len(answers)], tokens) for k in range(size)))

    def _sample(self, answer: str, tokens: int) -> Sample:
        ids, logprobs, thought = next(self._completions)
        text = f"<think>{thought}</think><answer>{answer}</answer>"
        return Sample(ids[:tokens], logprobs[:tokens], text, "stop", self.version)


class InstantActor(RolloutActor):
    """The rollout actor with an `InstantEngine`."""

    def __init__(self, config: Config, model: Path) -> None:
        self.engine = InstantEngine(config.rollout.group_size)  # type: ignore[assignment]


def _completion(rng: random.Random) -> tuple[tuple[int, ...], tuple[float, ...], str]:
    ids = tuple(rng.randrange(VOCABULARY) for _ in range(TOKENS))
    logprobs = tuple(-rng.expovariate(2.0) for _ in range(TOKENS))
    return ids, logprobs, "".join(rng.choices("abcdefghijklmnopqrstuvwxyz      ", k=THOUGHT))
