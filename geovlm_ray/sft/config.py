"""Length and optimizer of supervised fine-tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SftConfig(BaseModel):
    """Length and optimizer of the warm-up."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    steps: int = Field(1000, ge=1)
    batch_size: int = Field(32, ge=1, description="records per optimizer step")
    lr: float = Field(1e-5, gt=0, description="peak learning rate")
    warmup_steps: int = Field(50, ge=0)
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="muon: for matrices; the rest takes AdamW")
    max_grad_norm: float = Field(1.0, gt=0)
    log_every: int = Field(50, ge=1)
    threads: int = Field(1, ge=1, description="CPU threads")
