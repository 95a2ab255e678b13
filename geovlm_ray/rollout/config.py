"""What a rollout draws, and on what."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class RolloutConfig(BaseModel):
    """Sampling and the engines that do it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    prompts_per_step: int = Field(32, ge=1, description="prompts drawn for one learner step")
    group_size: int = Field(8, ge=2, description="completions per prompt (G; K in the paper)")
    max_tokens: int = Field(256, ge=1, description="longest completion in tokens")
    temperature: float = Field(1.0, gt=0, le=10, description="sampling temperature, used by the learner too")
    max_model_len: int = Field(4096, ge=64, description="longest prompt and completion together in tokens")
    kv_cache_gb: float = Field(0, ge=0, description="memory of the KV cache; 0: what the utilization leaves, 1 on CPU")
    gpu_memory_utilization: float = Field(0.45, gt=0, lt=1, description="share of the GPU that an engine may take")
    enforce_eager: bool = Field(False, description="no CUDA graphs: slower sampling, faster start")
    stall_s: float = Field(
        1800, gt=0, description="an actor that finishes no group for so long is ended and another one started"
    )
