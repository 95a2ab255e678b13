"""A learner whose weights change at every version without training."""

from __future__ import annotations

import numpy as np
import torch

from geovlm_ray.core.schema import SampleGroup
from geovlm_ray.learner.grpo_learner import GrpoLearner
from geovlm_ray.model.sharding import full_tensor, shard_like
from geovlm_ray.rollout.engine import Engine
from geovlm_ray.training.local import LocalRollouts


class RandomWeights:
    """A learner whose weights at version v are those of the packaged policy plus noise that depends only on v."""

    def __init__(self, learner: GrpoLearner) -> None:
        self.learner = learner
        self.trained = list(learner.trained.values())
        self.initial = [full_tensor(p.detach()).clone() for p in self.trained]

    def set_version(self, version: int) -> None:
        generator = torch.Generator().manual_seed(version)
        self.learner.steps = version
        with torch.no_grad():
            for parameter, initial in zip(self.trained, self.initial, strict=True):
                noise = torch.randn(initial.shape, generator=generator)
                # An adapter that has not been trained is half zeros.
                scale = float(initial.std().nan_to_num()) or 1.0
                changed = initial + 0.02 * scale * noise
                parameter.copy_(shard_like(parameter, changed))

    def send(self, engine: Engine, version: int) -> None:
        self.set_version(version)
        LocalRollouts(engine).update_weights(self.learner.weights)

    def max_error(self, groups: list[SampleGroup]) -> float:
        """Largest difference of log-probs between engine and learner, over tokens before any update."""
        differences = []
        for values, sample in zip(self.learner.logprobs(groups), (s for g in groups for s in g.samples), strict=True):
            end = sample.weight_updates[0][0] if sample.weight_updates else len(sample.token_ids)
            differences.append(np.abs(values - np.array(sample.logprobs))[:end].max(initial=0))
        return float(max(differences))
