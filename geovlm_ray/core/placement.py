"""How many actors a run has of each kind, what each reserves, and where they stand."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

GIB = 2**30


class ActorResources(BaseModel):
    """What one actor reserves of its node."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    num_cpus: float = Field(0, ge=0, description="CPU cores")
    num_gpus: float = Field(0, ge=0, description="GPUs, or a fraction of one")
    memory_gb: float = Field(0, ge=0, description="main memory in GiB; 0: none is reserved, and all may be used")

    @field_validator("num_gpus")
    @classmethod
    def _a_fraction_or_whole(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError("expected a fraction of one GPU or a whole number of them")
        return gpus


class PoolResources(ActorResources):
    """How many actors of a kind there are, and what each reserves."""

    num_cpus: float = Field(1, ge=0, description="CPU cores")
    actors: int = Field(1, ge=1, description="number of actors")


class PlacementConfig(BaseModel):
    """The actors of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    strategy: Literal["pack", "spread"] = Field(
        "pack", description="fill one node after the other as far as Ray's scheduler does, or spread over all nodes"
    )
    rollout: PoolResources = Field(PoolResources(), description="rollout actors, each with one vLLM engine")
    reward: PoolResources = Field(PoolResources(), description="reward actors")
    sbert: ActorResources = Field(
        ActorResources(), description="the one actor that embeds texts, where a reward needs it"
    )
    learner: PoolResources = Field(
        PoolResources(),
        description="learner actors; more than one share the batch, and each holds a part of every weight",
    )
