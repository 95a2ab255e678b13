"""How the learner updates the policy."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LearnerConfig(BaseModel):
    """The objective and its optimizer (AdamW)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    threads: int = Field(1, ge=1, description="CPU threads of the learner; fixed, so that a run can be repeated")
    lr: float = Field(1e-6, gt=0, description="learning rate after the warm-up")
    warmup_steps: int = Field(0, ge=0, description="steps over which the learning rate rises from 0")
    decay: bool = Field(False, description="let the learning rate fall linearly to a tenth at the last step")
    weight_decay: float = Field(0.0, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    mini_batches: int = Field(1, ge=1, description="optimizer steps per batch; more than 1 makes the clip matter")
    tokens_per_micro_batch: int = Field(
        8192,
        ge=1,
        description="tokens of prompts, images and completions in one forward and backward pass; a group, whose prompt "
        "counts once, is never cut, and a larger one goes alone",
    )
    objective: Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo"] = Field(
        "grpo", description="what is maximised (geovlm_ray.learner.objectives)"
    )
    clip_low: float = Field(0.2, gt=0, lt=1, description="the ratio is clipped from below at 1 - clip_low")
    clip_high: float = Field(0.2, gt=0, description="the ratio is clipped from above at 1 + clip_high")
    overlong_buffer: int = Field(
        0,
        ge=0,
        description="completions within this many tokens of rollout.max_tokens lose up to 1 reward (DAPO); 0: none",
    )
    kl_beta: float = Field(0.0, ge=0, description="weight of the KL to the reference policy")
    old_logprobs: Literal["engine", "learner"] = Field(
        "engine",
        description="log-probs of the old policy: those that the engine drew with, which needs no further pass and "
        "corrects for its rounding within the clip, or those of the learner before its step, corrected by `tis_cap`",
    )
    tis_cap: float = Field(
        2.0, ge=1, description="bound of the importance weight learner / engine where old_logprobs is learner"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass")
