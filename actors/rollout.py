"""The rollout actor: one vLLM engine on its share of the machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.tracing import set_weight_version, start_monitoring, trace_call
from geovlm_ray.config import Config
from geovlm_ray.core.schema import Prompt, SampleGroup
from geovlm_ray.observability.heartbeat import HEARTBEAT

if TYPE_CHECKING:
    from geovlm_ray.transport.buckets import WeightBucket

HAND_OVER_S = 0.1
"""Seconds between two messages of an actor that draws: each costs the engine about a millisecond."""
MESSAGE_GROUPS = 16
"""Groups of one message, about: more would keep the reward actors waiting."""


class RolloutActor:
    """One engine."""

    def __init__(self, config: Config, model: Path) -> None:
        # Here, so that an actor with an engine of another kind needs no torch.
        from geovlm_ray.training.local import make_engine

        start_monitoring(config.run)
        with trace_call("start"):
            self.engine = make_engine(config, model)
        set_weight_version(self.engine.version)

    def stream(self, prompts: Sequence[Prompt], **sampling: Any) -> Iterator[list[SampleGroup]]:
        """Draw completions of each prompt; what is finished within `HAND_OVER_S` comes together, in parts."""
        finished: list[SampleGroup] = []
        handed_over = time.monotonic()
        with trace_call("stream", len(prompts)):
            for groups in self.engine.stream(prompts, **sampling):
                HEARTBEAT.count(_tokens(groups))
                finished += groups
                if len(finished) >= MESSAGE_GROUPS or time.monotonic() - handed_over >= HAND_OVER_S:
                    yield finished
                    finished, handed_over = [], time.monotonic()
            if finished:
                yield finished

    def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
        """Draw completions of each prompt."""
        with trace_call("generate", len(prompts)):
            groups = self.engine.generate(prompts, **sampling)
        HEARTBEAT.count(_tokens(groups))
        return groups

    def receive(self, bucket: WeightBucket) -> int:
        """Take a part of a version of the weights; returns the version that the engine holds."""
        with trace_call("receive"):
            version = self.engine.receive(bucket)
        set_weight_version(version)
        return version


def _tokens(groups: Sequence[SampleGroup]) -> int:
    return sum(len(sample.token_ids) for group in groups for sample in group.samples)
