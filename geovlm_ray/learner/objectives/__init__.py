"""RL objectives by name, one file each."""

from __future__ import annotations

from geovlm_ray.learner.loss_inputs import Objective
from geovlm_ray.learner.objectives.cispo import CISPO
from geovlm_ray.learner.objectives.dapo import DAPO
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
