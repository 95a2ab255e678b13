"""A learner of a model of middle size, and completions of made-up tokens to train on without drawing any."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks.random_model import mid_model
from geovlm_ray.config import Config
from geovlm_ray.core.schema import Prompt, RewardScore, Sample, SampleGroup
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.learner.grpo_learner import GrpoLearner
from geovlm_ray.training.local import make_learner

MID_SETTINGS = ("prompt.image_size=448", "learner.threads=2", "learner.lr=1e-6")


def mid_learner(config: Config) -> GrpoLearner:
    """A learner of the model of 45 million weights."""
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as folder:
        return make_learner(config, mid_model(Path(folder) / "model"))


def scored_groups(config: Config, learner: GrpoLearner, groups: int, size: int, tokens: int) -> list[SampleGroup]:
    """Groups of ``size`` completions of ``tokens`` tokens behind drawn scenes, with rewards 0 and 1 in turns."""
    generator = torch.Generator().manual_seed(config.run.seed)
    allowed = sorted(set(range(len(learner.encoder.processor.tokenizer))) - set(learner.banned.tolist()))
    drawn = torch.tensor(allowed)[torch.randint(len(allowed), (groups, size, tokens), generator=generator)]
    return [
        SampleGroup(
            Prompt(number, scene_example("object_detection", config.run.seed, number)),
            tuple(
                Sample(tuple(ids), (-5.0,) * tokens, "", "length", 0, RewardScore(float(i % 2), 1.0, 0.0))
                for i, ids in enumerate(completions)
            ),
        )
        for number, completions in enumerate(drawn.tolist())
    ]
