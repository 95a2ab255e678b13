"""Rollout settings."""

from __future__ import annotations

from pydantic import Field

from geovlm_ray.core.section import Section


class RolloutConfig(Section):
    """Sampling parameters and inference engines."""

    prompts_per_step: int = Field(32, ge=1, description="prompts per learner step")
    group_size: int = Field(8, ge=2, description="completions per prompt (G; K in the paper)")
    max_tokens: int = Field(256, ge=1, description="maximum completion length in tokens")
    temperature: float = Field(
        1.0,
        ge=0.01,
        le=10,
        description="sampling temperature; the learner applies it too; vLLM would raise lower values to 0.01",
    )
    max_model_len: int = Field(4096, ge=64, description="maximum length of prompt plus completion in tokens")
    kv_cache_gb: float = Field(
        0,
        ge=0,
        description="KV cache size in GiB, on CPU rounded to whole ones; 0: as gpu_memory_utilization allows, or 1 on "
        "CPU",
    )
    gpu_memory_utilization: float = Field(
        0.45, gt=0, lt=1, description="fraction of GPU memory per engine, which must be free when it starts"
    )
    tensor_parallel: int = Field(
        1, ge=1, description="workers over which an engine divides the weights: the GPUs of a rollout actor"
    )
    enforce_eager: bool = Field(False, description="disable CUDA graphs: slower sampling, faster start")
    stall_s: float = Field(
        1800, gt=0, description="seconds without a finished group after which a rollout actor is replaced"
    )
