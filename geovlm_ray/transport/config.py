"""Configuration of the weight sync."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from geovlm_ray.core.section import Section
from geovlm_ray.transport.choice import AUTO


class SyncConfig(Section):
    """Weight sync, and the parity check of engine and learner log-probs after it."""

    mode: Literal["drained", "in_flight"] = Field(
        "drained",
        description="drained: engines finish the batches submitted earlier before they load new weights; in_flight: "
        "they load them between two decoding steps, and running completions continue with the new weights",
    )
    transport: str = Field(
        AUTO,
        description="how weights get from the learner to the engines: object_store, nccl, ipc, gloo, shared_memory; "
        "auto: ipc or nccl for model weights on GPUs, gloo for rollout.tensor_parallel without GPUs, else object_store",
    )
    parity_tolerance: float = Field(
        1e-3, gt=0, description="largest allowed absolute log-prob difference of a token; bf16 needs about 0.5"
    )
    parity_prompts: int = Field(
        4, ge=1, description="prompts in the probe batch; one with image files again in other bands"
    )
    parity_tokens: int = Field(4, ge=1, description="tokens per completion in the probe batch")
