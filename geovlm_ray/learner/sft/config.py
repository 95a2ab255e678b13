"""Supervised fine-tuning settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from geovlm_ray.core.section import Section
from geovlm_ray.data.answers import Reasoning
from geovlm_ray.learner.schedules import Decay


class SftConfig(Section):
    """Supervised fine-tuning before reinforcement learning; model, prompt and data have their own sections."""

    scratch: bool = Field(
        False, description="train a new tiny model and tokenizer from random weights instead of model.path"
    )
    reasoning: Reasoning = Field(
        "empty",
        description="empty: records without reasoning get empty think tags; none: no response has reasoning or think "
        "tags, as reward.think=none requires",
    )
    steps: int = Field(1000, ge=1, description="optimizer steps")
    batch_size: int = Field(32, ge=1, description="records per optimizer step")
    pack_tokens: int = Field(
        4096,
        ge=1,
        description="maximum tokens per row of packed sequences, images included",
    )
    lr: float = Field(1e-5, gt=0, description="peak learning rate, reached at the last step of warm-up")
    warmup_steps: int = Field(50, ge=0, description="steps of linear warm-up from 0 to the peak")
    lr_decay: Decay = Field("linear", description="decay of the learning rate after warm-up; constant: none")
    lr_end: float = Field(
        0.0, ge=0, le=1, description="learning rate of the last step as a fraction of the peak, unless it is constant"
    )
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="muon: Muon for matrices, AdamW for the rest")
    max_grad_norm: float = Field(1.0, gt=0, description="gradient-norm clipping threshold")
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass")
    eval_every: int = Field(100, ge=1, description="steps between evaluations on held-out examples")
    eval_examples: int = Field(240, ge=0, description="held-out examples, split evenly over the tasks; 0: none")
    checkpoint_every: int = Field(100, ge=1, description="steps between checkpoints; the last step always has one")
    log_every: int = Field(50, ge=1, description="steps between progress lines on the terminal")
    readers: int = Field(1, ge=0, description="processes that prefetch batches; 0: the training process does it")
    threads: int = Field(1, ge=1, description="CPU threads for training; fixed for reproducibility")
    save_dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        None, description="dtype of the exported weights; null: model.dtype"
    )
