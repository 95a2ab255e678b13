"""What the learner maximises: GRPO and its kin by name, one file each."""

from __future__ import annotations

import numpy as np

from geovlm_ray.grpo.config import LearnerConfig
from geovlm_ray.grpo.objectives.cispo import CISPO
from geovlm_ray.grpo.objectives.dapo import DAPO, overlong_penalty
from geovlm_ray.grpo.objectives.dr_grpo import DR_GRPO
from geovlm_ray.grpo.objectives.grpo import GRPO
from geovlm_ray.grpo.objectives.gspo import GSPO
from geovlm_ray.grpo.tokens import Objective
from geovlm_ray.schema import SampleGroup

OBJECTIVES: dict[str, Objective] = {
    "grpo": GRPO,
    "dr_grpo": DR_GRPO,
    "dapo": DAPO,
    "gspo": GSPO,
    "cispo": CISPO,
}


def advantages(group: SampleGroup, config: LearnerConfig, longest: int) -> np.ndarray:
    """Advantage of every sample of a scored group, [G]; a completion has at most ``longest`` tokens."""
    rewards = np.asarray(group.rewards, dtype=np.float64)
    if config.overlong_buffer:
        lengths = np.array([len(s.token_ids) for s in group.samples])
        rewards = rewards + overlong_penalty(lengths, longest, config.overlong_buffer)
    return OBJECTIVES[config.objective].advantages(rewards)
