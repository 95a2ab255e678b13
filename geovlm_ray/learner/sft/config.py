"""What supervised fine-tuning teaches, for how long, and how it optimises."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from geovlm_ray.data.answers import Reasoning


class SftConfig(BaseModel):
    """The stage before reinforcement learning; model, prompt and data are those of the other sections."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    scratch: bool = Field(
        False, description="train a new tiny model with its own tokenizer, from random weights, not model.path"
    )
    reasoning: Reasoning = Field(
        "empty",
        description="responses to records without reasoning: empty think tags, or none, as in all responses then; "
        "none goes with reward.think=none",
    )
    steps: int = Field(1000, ge=1, description="optimizer steps")
    batch_size: int = Field(32, ge=1, description="records per optimizer step")
    pack_tokens: int = Field(
        4096, ge=1, description="longest row: so many tokens of whole sequences, images included, share a forward pass"
    )
    lr: float = Field(1e-5, gt=0, description="peak learning rate; it rises over the warm-up and then falls to 0")
    warmup_steps: int = Field(50, ge=0, description="steps over which the learning rate rises")
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="muon: for matrices; the rest takes AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass")
    eval_every: int = Field(100, ge=1, description="steps between two evaluations on held-out examples")
    eval_examples: int = Field(240, ge=0, description="held-out examples in equal parts of the tasks; 0: none")
    checkpoint_every: int = Field(100, ge=1, description="steps between two checkpoints; the last step always has one")
    log_every: int = Field(50, ge=1, description="steps between two lines on the terminal")
    readers: int = Field(1, ge=0, description="processes that decode and pack ahead; 0: the training process does it")
    threads: int = Field(1, ge=1, description="CPU threads of the training; fixed, so that a run can be repeated")
    save_dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        None, description="type of the weights in the final folder; null: model.dtype"
    )
