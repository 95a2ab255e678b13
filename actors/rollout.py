"""The rollout actor, which hosts one vLLM engine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray

from actors.options import hide_other_gpus
from actors.tracing import set_weight_version, start_monitoring, trace_call
from geovlm_ray.config import Config
from geovlm_ray.core.schema import Prompt, SampleGroup
from geovlm_ray.observability.heartbeat import HEARTBEAT
from geovlm_ray.tasks.extensions import activate

FLUSH_INTERVAL_S = 0.1
"""Seconds between messages of a streaming actor; each message costs the engine about a millisecond."""
FLUSH_GROUPS = 16
"""Number of finished groups that are sent without waiting for `FLUSH_INTERVAL_S`, to keep reward actors busy."""


class RolloutActor:
    """Hosts one engine."""

    def __init__(self, config: Config, model: Path) -> None:
        # Imported here so that actors with another kind of engine do not need torch.
        from geovlm_ray.training.local import make_engine

        hide_other_gpus()
        start_monitoring(config.run)
        activate(config)
        with trace_call("start"):
            self.engine = make_engine(config, model)
        set_weight_version(self.engine.version)

    def stream(self, prompts: Sequence[Prompt], **sampling: Any) -> Iterator[list[SampleGroup]]:
        """Sample completions of each prompt; groups that finish within `FLUSH_INTERVAL_S` are yielded together."""
        finished: list[SampleGroup] = []
        last_flush = time.monotonic()
        with trace_call("stream", len(prompts)):
            for groups in self.engine.stream(prompts, **sampling):
                HEARTBEAT.count(_tokens(groups))
                finished += groups
                if len(finished) >= FLUSH_GROUPS or time.monotonic() - last_flush >= FLUSH_INTERVAL_S:
                    yield finished
                    finished, last_flush = [], time.monotonic()
            if finished:
                yield finished

    def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
        """Sample completions of each prompt."""
        with trace_call("generate", len(prompts)):
            groups = self.engine.generate(prompts, **sampling)
        HEARTBEAT.count(_tokens(groups))
        return groups

    def endpoint(self) -> Any:
        """What the learner's transport needs to reach this engine."""
        return self.engine.endpoint(ray.util.get_node_ip_address())

    def sleep(self) -> None:
        """Give back the engine's GPU memory until the next weights arrive."""
        with trace_call("sleep"):
            self.engine.sleep()

    def receive(self, chunk: Any) -> int:
        """Accept one chunk of a weight version; returns the version that the engine holds."""
        with trace_call("receive"):
            version = self.engine.receive(chunk)
        set_weight_version(version)
        return version


def _tokens(groups: Sequence[SampleGroup]) -> int:
    return sum(len(sample.policy_logprobs) for group in groups for sample in group.samples)
