"""RL objectives by name, one file each."""

from __future__ import annotations

import numpy as np

from geovlm_ray.core.schema import SampleGroup
from geovlm_ray.learner.config import LearnerConfig
from geovlm_ray.learner.loss_inputs import Objective
from geovlm_ray.learner.objectives.cispo import CISPO
from geovlm_ray.learner.objectives.dapo import DAPO, overlong_penalty
from geovlm_ray.learner.objectives.dr_grpo import DR_GRPO
from geovlm_ray.learner.objectives.grpo import GRPO
from geovlm_ray.learner.objectives.gspo import GSPO

OBJECTIVES: dict[str, Objective] = {
    "grpo": GRPO,
    "dr_grpo": DR_GRPO,
    "dapo": DAPO,
    "gspo": GSPO,
    "cispo": CISPO,
}


def advantages(group: SampleGroup, config: LearnerConfig, max_completion_tokens: int) -> np.ndarray:
    """Advantages of a scored group's samples, [G], after the overlong penalty if it is enabled."""
    rewards = np.asarray(group.rewards, dtype=np.float64)
    if config.overlong_buffer:
        lengths = np.array([len(s.policy_logprobs) for s in group.samples])
        rewards = rewards + overlong_penalty(lengths, max_completion_tokens, config.overlong_buffer)
    return OBJECTIVES[config.objective].advantages(rewards)
