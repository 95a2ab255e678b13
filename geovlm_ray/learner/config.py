"""Learner settings."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from geovlm_ray.core.errors import expected_one_of
from geovlm_ray.core.section import Section
from geovlm_ray.learner.advantages import AdvantageSettings, Center, Scale
from geovlm_ray.learner.importance import Correction, Importance, Level
from geovlm_ray.learner.kl import KlEstimator
from geovlm_ray.learner.loss_inputs import Clip, Objective
from geovlm_ray.learner.objectives import OBJECTIVES
from geovlm_ray.learner.schedules import Decay


class LearnerConfig(Section):
    """RL objective and optimizer (AdamW)."""

    threads: int = Field(1, ge=1, description="CPU threads of the learner; fixed for reproducibility")
    lr: float = Field(1e-6, gt=0, description="peak learning rate, reached at the last step of warm-up")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up from 0 to the peak")
    lr_decay: Decay = Field("constant", description="decay of the learning rate after warm-up; constant: none")
    lr_end: float = Field(
        0.1, ge=0, le=1, description="learning rate of the last step as a fraction of the peak, unless it is constant"
    )
    weight_decay: float = Field(0.0, ge=0, description="weight decay of AdamW")
    beta1: float = Field(0.9, ge=0, lt=1, description="first-moment coefficient of AdamW")
    beta2: float = Field(0.95, ge=0, lt=1, description="second-moment coefficient of AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="gradient-norm clipping threshold")
    mini_batches: int = Field(1, ge=1, description="optimizer steps per batch; those after the first are off-policy")
    tokens_per_micro_batch: int = Field(
        8192,
        ge=1,
        description="maximum tokens of prompts, images and completions per forward and backward pass; a prompt counts "
        "once per group, which is never split; a larger group forms its own micro-batch",
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass")

    objective: str = Field("grpo", description="RL objective, a key of geovlm_ray.learner.objectives.OBJECTIVES")
    clip_low: float | None = Field(
        None, gt=0, le=1, description="lower clip bound of the ratio: 1 - clip_low; null: the objective's default"
    )
    clip_high: float | None = Field(
        None, gt=0, description="upper clip bound of the ratio: 1 + clip_high; null: the objective's default"
    )
    dual_clip: float | None = Field(
        3.0, gt=1, description="bound on the ratio of tokens with a negative advantage (grpo, dr_grpo, dapo); null: off"
    )
    old_logprobs: Literal["engine", "learner"] = Field(
        "engine",
        description="log-probs of the old policy. engine: recorded during sampling; needs no extra pass, and the ratio "
        "corrects for numerical differences within the clip. learner: recomputed before the step, with importance "
        "weights learner / engine",
    )
    importance: Correction | None = Field(
        None,
        description="correction of importance weights learner / engine. truncate: at most importance_high; mask: "
        "weights outside [importance_low, importance_high] drop their tokens; none; null: truncate with "
        "old_logprobs=learner, none with engine, whose ratio contains the weight",
    )
    importance_level: Level = Field("token", description="weights of single tokens, or products over whole completions")
    importance_low: float = Field(0.5, ge=0, lt=1, description="smallest importance weight that mask keeps")
    importance_high: float = Field(2.0, ge=1, description="largest importance weight")

    advantage_center: Center | None = Field(
        None,
        description="what is subtracted from rewards: the mean of the group, of the group's other completions "
        "(leave_one_out: RLOO), of the batch, or nothing; null: the objective's default",
    )
    advantage_scale: Scale | None = Field(
        None,
        description="the standard deviation that advantages are divided by; null: the objective's default",
    )
    advantage_per_reward: bool = Field(
        False,
        description="center and scale format and accuracy separately within the group, then their sum over the batch "
        "(GDPO); replaces advantage_center and advantage_scale",
    )
    group_accuracy: tuple[float, float] = Field(
        (0.0, 1.0),
        description="groups whose mean accuracy lies outside have no advantages; loop.resample replaces them",
    )
    mask_truncated: bool = Field(
        False, description="completions cut off at rollout.max_tokens get no advantage and do not affect their group"
    )
    overlong_buffer: int = Field(
        0,
        ge=0,
        description="completions within this many tokens of rollout.max_tokens lose up to 1 reward (DAPO); 0: off",
    )

    kl_beta: float = Field(0.0, ge=0, description="coefficient of the KL penalty to the reference policy; 0: off")
    kl_estimator: KlEstimator = Field(
        "k3", description="estimator of the KL penalty; k3_unbiased: the value of k3 with the gradient of k2"
    )
    kl_in: Literal["loss", "reward"] = Field(
        "loss",
        description="loss: the penalty has a gradient of its own; reward: its sum over a completion is subtracted from "
        "the reward",
    )
    kl_metric: bool = Field(
        False, description="record the KL to the reference policy even if kl_beta is 0; loads the reference policy"
    )
    entropy: Literal["sampled", "exact"] = Field(
        "sampled", description="sampled: minus the log-prob of sampled tokens; exact: over the whole vocabulary as well"
    )
    entropy_bonus: float = Field(0.0, ge=0, description="coefficient of the exact entropy in the loss; 0: off")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective: {expected_one_of(OBJECTIVES, self.objective)}")
        registered = OBJECTIVES[self.objective]
        if not isinstance(registered, Objective):
            raise ValueError(f"objective={self.objective}: expected an Objective in OBJECTIVES, found {registered!r}")
        low, high = self.group_accuracy
        if not 0 <= low <= high <= 1:
            raise ValueError(f"group_accuracy: expected 0 <= low <= high <= 1, found {low}, {high}")
        return self

    @property
    def clip(self) -> Clip:
        """Clip bounds: the settings, or the objective's defaults."""
        objective = OBJECTIVES[self.objective]
        low = objective.clip_low if self.clip_low is None else self.clip_low
        high = objective.clip_high if self.clip_high is None else self.clip_high
        return Clip(low, high, self.dual_clip)

    @property
    def advantages(self) -> AdvantageSettings:
        """How rewards become advantages: the settings, or the objective's defaults."""
        objective = OBJECTIVES[self.objective]
        return AdvantageSettings(
            self.advantage_center or objective.center,
            self.advantage_scale or objective.scale,
            self.advantage_per_reward,
            self.mask_truncated,
            self.group_accuracy,
        )

    @property
    def importance_correction(self) -> Importance | None:
        """The correction of importance weights; None if there is none."""
        correction = self.importance or ("truncate" if self.old_logprobs == "learner" else "none")
        if correction == "none":
            return None
        return Importance(correction, self.importance_level, self.importance_low, self.importance_high)

    @property
    def exact_entropy(self) -> bool:
        """Whether the entropy over the whole vocabulary is computed."""
        return self.entropy == "exact" or self.entropy_bonus > 0

    @property
    def kl_in_loss(self) -> bool:
        """Whether the loss has a KL penalty."""
        return self.kl_beta > 0 and self.kl_in == "loss"

    @property
    def needs_reference(self) -> bool:
        """Whether the reference policy is loaded."""
        return self.kl_beta > 0 or self.kl_metric
