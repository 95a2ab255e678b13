"""Learner settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from geovlm_ray.core.section import Section


class LearnerConfig(Section):
    """RL objective and optimizer (AdamW)."""

    threads: int = Field(1, ge=1, description="CPU threads of the learner; fixed for reproducibility")
    lr: float = Field(1e-6, gt=0, description="learning rate after warm-up")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up from 0")
    decay: bool = Field(False, description="decay the learning rate linearly to a tenth at the last step")
    weight_decay: float = Field(0.0, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, gt=0, description="gradient-norm clipping threshold")
    mini_batches: int = Field(1, ge=1, description="optimizer steps per batch; those after the first are off-policy")
    tokens_per_micro_batch: int = Field(
        8192,
        ge=1,
        description="maximum tokens of prompts, images and completions per forward and backward pass; a prompt counts "
        "once per group, which is never split; a larger group forms its own micro-batch",
    )
    objective: str = Field("grpo", description="RL objective, a key of geovlm_ray.learner.objectives.OBJECTIVES")
    clip_low: float = Field(0.2, gt=0, lt=1, description="lower clip bound of the ratio: 1 - clip_low")
    clip_high: float = Field(0.2, gt=0, description="upper clip bound of the ratio: 1 + clip_high")
    overlong_buffer: int = Field(
        0,
        ge=0,
        description="completions within this many tokens of rollout.max_tokens lose up to 1 reward (DAPO); 0: off",
    )
    kl_beta: float = Field(0.0, ge=0, description="coefficient of the KL penalty to the reference policy; 0: off")
    old_logprobs: Literal["engine", "learner"] = Field(
        "engine",
        description="log-probs of the old policy. engine: recorded during sampling; needs no extra pass, and the ratio "
        "corrects for numerical differences within the clip. learner: recomputed before the step, with importance "
        "weights up to `tis_cap`",
    )
    tis_cap: float = Field(
        2.0, ge=1, description="maximum importance weight learner / engine, for old_logprobs=learner"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass")
