"""Actor placement configuration: number of actors per pool, resources per actor, placement strategy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from geovlm_ray.core.section import Section

GIB = 2**30


class ActorResources(Section):
    """Resources that one actor reserves on its node."""

    num_cpus: float = Field(0, ge=0, description="CPU cores")
    num_gpus: float = Field(0, ge=0, description="GPUs, or a fraction of one")
    memory_gb: float = Field(0, ge=0, description="main memory in GiB; 0 reserves none and sets no limit")

    @field_validator("num_gpus")
    @classmethod
    def _fraction_or_integer(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError("expected a fraction of one GPU or a whole number of GPUs")
        return gpus


class PoolResources(ActorResources):
    """Number of actors in a pool and resources of each."""

    num_cpus: float = Field(1, ge=0, description="CPU cores")
    actors: int = Field(1, ge=1, description="number of actors")


class PlacementConfig(Section):
    """Placement of the actors of a run."""

    strategy: Literal["pack", "spread"] = Field(
        "pack", description="placement strategy of Ray's scheduler: fill nodes one by one, or spread over all nodes"
    )
    colocate: bool = Field(
        False,
        description="each learner actor shares a GPU with a rollout actor, whose engine gives its memory back while "
        "the learner trains; needs as many learner as rollout actors, on-policy rollouts and drained syncs",
    )
    gpu_memory_gb: float = Field(
        0, ge=0, description="memory of a GPU in GiB, to check before the start; 0: that of this machine's GPUs"
    )
    rollout: PoolResources = Field(PoolResources(), description="rollout actors, each with one vLLM engine")
    reward: PoolResources = Field(PoolResources(), description="reward actors")
    sbert: ActorResources = Field(
        ActorResources(), description="sentence-embedding actor, started if a reward needs it"
    )
    learner: PoolResources = Field(
        PoolResources(), description="learner actors; several split the batch and shard every weight"
    )
