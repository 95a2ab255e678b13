"""In-process backend of the training loop: for debugging, and for runs on a single machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from geovlm_ray.config import Config
from geovlm_ray.core.interfaces import Components, Weights
from geovlm_ray.core.placement import PoolResources
from geovlm_ray.core.schema import Prompt, SampleGroup
from geovlm_ray.data.image_cache import open_cache
from geovlm_ray.learner.grpo_learner import GrpoLearner
from geovlm_ray.learner.ranks import SINGLE_PROCESS, Ranks
from geovlm_ray.model.loading import load_processor
from geovlm_ray.model.prompts import PromptEncoder
from geovlm_ray.observability.heartbeat import HEARTBEAT
from geovlm_ray.rewards.local import LocalRewards
from geovlm_ray.rollout.engine import Engine
from geovlm_ray.training.preflight import Ready
from geovlm_ray.transport.base import Transport
from geovlm_ray.transport.choice import AUTO


def make_encoder(config: Config, model: Path) -> PromptEncoder:
    """The prompt encoder; engine and learner use the same settings."""
    return PromptEncoder(load_processor(model), config.prompt, open_cache(config.data.image_cache_gb))


def make_transport(config: Config) -> Transport:
    """One end of the weight transport, of the learner or of an engine."""
    return config.transport(config.rollout.stall_s)


def make_engine(config: Config, model: Path) -> Engine:
    """An engine with the run's base weights."""
    lora = config.model.lora
    rank = lora.rank if lora and config.model.sends_adapter else 0
    encoder = make_encoder(config, model)
    return Engine(
        model,
        encoder,
        config.rollout,
        transport=make_transport(config),
        dtype=config.model.dtype,
        fp32_head=config.model.fp32_head,
        lora_rank=rank,
        sleep_level=(1 if lora else 2) if config.placement.colocate else 0,
        seed=config.run.seed,
    )


def make_learner(config: Config, model: Path, ranks: Ranks = SINGLE_PROCESS) -> GrpoLearner:
    """The learner with the run's base weights, or one rank of it."""
    return GrpoLearner(
        config.model,
        model,
        make_encoder(config, model),
        config.learner,
        temperature=config.rollout.temperature,
        max_completion_tokens=config.rollout.max_tokens,
        total_steps=config.run.steps,
        seed=config.run.seed,
        transport=make_transport(config),
        on_gpu=config.placement.learner.num_gpus > 0,
        shares_gpu=config.placement.colocate,
        prompts_per_step=config.rollout.prompts_per_step,
        ranks=ranks,
    )


class LocalRollouts:
    """Rollout pool of one engine; `submit` generates the batch synchronously."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._endpoint = engine.endpoint("127.0.0.1")

    def submit(self, prompts: Sequence[Prompt], **sampling: Any) -> list[list[SampleGroup]]:
        """Generate the completions of a batch, blocking until they are complete."""
        with HEARTBEAT.busy("submit"):
            return [self.engine.generate(prompts, **sampling)]

    def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
        """Sample completions of each prompt."""
        return self.engine.generate(prompts, **sampling)

    def probe(self, prompts: Sequence[Prompt], max_tokens: int) -> list[list[SampleGroup]]:
        """Short completions from the only engine, [1][prompts]."""
        return [self.engine.generate(prompts, group_size=1, max_tokens=max_tokens)]

    def update_weights(self, weights: Weights) -> None:
        """Load the weights into the engine, which receives beside the sender: a transport may need both at once."""
        with ThreadPoolExecutor(1) as receiver:
            for receipt in [receiver.submit(self.engine.receive, chunk) for chunk in weights([self._endpoint])]:
                receipt.result()

    def sleep(self) -> None:
        """Give back the engine's GPU memory."""
        self.engine.sleep()

    def close(self) -> None:
        """Do nothing: the engine ends with the process."""


class StreamedRollouts(LocalRollouts):
    """Rollout pool of one engine whose batches share its steps.

    For a single thread that submits batches ahead: the engine works while any of them is iterated.
    """

    def submit(self, prompts: Sequence[Prompt], **sampling: Any) -> Iterator[list[SampleGroup]]:  # type: ignore[override]
        """Give a batch to the engine; yields groups as they complete."""
        return self.engine.stream(prompts, **sampling)


def in_one_process(config: Config) -> Config:
    """The configuration with one engine, and a transport for an engine in the learner's process."""
    placement = config.placement.model_copy(update={"rollout": PoolResources()})
    sync = config.sync
    if sync.transport == AUTO and config.rollout.tensor_parallel == 1:
        sync = sync.model_copy(update={"transport": "object_store"})
    return config.model_copy(update={"placement": placement, "sync": sync})


def build(config: Config, ready: Ready) -> Components:
    """Build all components of a run in this process."""
    config = in_one_process(config)
    return Components(
        LocalRollouts(make_engine(config, ready.model)),
        LocalRewards(config.reward),
        make_learner(config, ready.model),
    )
