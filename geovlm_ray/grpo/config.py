"""How the learner updates the policy."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class LearnerConfig(BaseModel):
    """GRPO and its optimizer (AdamW)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    num_cpus: float = Field(1, ge=0, description="CPU cores that the learner actor reserves")
    num_gpus: float = Field(0, ge=0, description="GPUs (or a fraction of one) that the learner actor reserves")
    threads: int = Field(1, ge=1, description="CPU threads of the learner; fixed, so that a run can be repeated")
    lr: float = Field(1e-6, gt=0, description="learning rate after the warm-up")
    warmup_steps: int = Field(0, ge=0, description="steps over which the learning rate rises from 0")
    decay: bool = Field(False, description="let the learning rate fall linearly to a tenth at the last step")
    weight_decay: float = Field(0.0, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    mini_batches: int = Field(1, ge=1, description="optimizer steps per batch; more than 1 makes the clip matter")
    groups_per_micro_batch: int = Field(4, ge=1, description="groups in one forward and backward pass")
    clip_low: float = Field(0.2, gt=0, lt=1, description="the ratio is clipped from below at 1 - clip_low")
    clip_high: float = Field(0.2, gt=0, description="the ratio is clipped from above at 1 + clip_high")
    kl_beta: float = Field(0.0, ge=0, description="weight of the KL to the reference policy")
    gradient_checkpointing: bool = Field(False, description="recompute the vision tower's activations in the backward")
