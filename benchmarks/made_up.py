"""A learner with random weights, and completions of random tokens, to train without rollouts."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks.random_model import SHAPES, write_model
from geovlm_ray.config import Config
from geovlm_ray.core.schema import Prompt, RewardScore, Sample, SampleGroup
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.learner.grpo_learner import GrpoLearner
from geovlm_ray.training.local import make_learner

MID_SETTINGS = ("prompt.image_size=448", "learner.threads=2", "learner.lr=1e-6", "learner.kl_beta=0")


def random_learner(config: Config, shape: str) -> GrpoLearner:
    """A learner of a model of random weights; ``shape`` is a key of `SHAPES`."""
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as folder:
        write_model(Path(folder), SHAPES[shape])
        return make_learner(config, Path(folder))


def scored_groups(config: Config, learner: GrpoLearner, groups: int, size: int, tokens: int) -> list[SampleGroup]:
    """Groups of ``size`` random completions of ``tokens`` tokens for synthetic scenes; rewards alternate 0 and 1."""
    generator = torch.Generator().manual_seed(config.run.seed)
    allowed = sorted(set(range(len(learner.encoder.processor.tokenizer))) - set(learner.banned.tolist()))
    token_ids = torch.tensor(allowed)[torch.randint(len(allowed), (groups, size, tokens), generator=generator)]
    return [
        SampleGroup(
            Prompt(number, scene_example("object_detection", config.run.seed, number)),
            tuple(
                Sample(tuple(ids), (-5.0,) * tokens, "", "length", 0, RewardScore(float(i % 2), 1.0, 0.0))
                for i, ids in enumerate(completions)
            ),
        )
        for number, completions in enumerate(token_ids.tolist())
    ]
