"""The rollout actor: one vLLM engine on its share of the machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.watched import call, holds, watch
from geovlm_ray.config import Config
from geovlm_ray.pulse import PULSE
from geovlm_ray.schema import Prompt, SampleGroup

if TYPE_CHECKING:
    from geovlm_ray.sync.buckets import WeightBucket

HAND_OVER_S = 0.1
"""Seconds between two messages of an actor that draws: each costs the engine about a millisecond."""
MESSAGE_GROUPS = 16
"""Groups of one message, about: more would keep the reward actors waiting."""


class RolloutActor:
    """One engine."""

    def __init__(self, config: Config, model: Path) -> None:
        # Here, so that an actor with an engine of another kind needs no torch.
        from geovlm_ray.local import make_engine

        watch(config.run)
        with call("start"):
            self.engine = make_engine(config, model)
        holds(self.engine.version)

    def stream(self, prompts: Sequence[Prompt], **sampling: Any) -> Iterator[list[SampleGroup]]:
        """Draw completions of each prompt; what is finished within `HAND_OVER_S` comes together, in parts."""
        finished: list[SampleGroup] = []
        handed_over = time.monotonic()
        with call("stream", len(prompts)):
            for groups in self.engine.stream(prompts, **sampling):
                PULSE.count(_tokens(groups))
                finished += groups
                if len(finished) >= MESSAGE_GROUPS or time.monotonic() - handed_over >= HAND_OVER_S:
                    yield finished
                    finished, handed_over = [], time.monotonic()
            if finished:
                yield finished

    def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
        """Draw completions of each prompt."""
        with call("generate", len(prompts)):
            groups = self.engine.generate(prompts, **sampling)
        PULSE.count(_tokens(groups))
        return groups

    def receive(self, bucket: WeightBucket) -> int:
        """Take a part of a version of the weights; returns the version that the engine holds."""
        with call("receive"):
            version = self.engine.receive(bucket)
        holds(version)
        return version


def _tokens(groups: Sequence[SampleGroup]) -> int:
    return sum(len(sample.token_ids) for group in groups for sample in group.samples)
