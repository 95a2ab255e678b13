"""Speed-up of the learner from encoding each group's images and prompt once.

``python -m benchmarks.shared_prefix [--json OUT]`` (about 5 minutes). A learner step on groups of 8 completions of 64
tokens with one 448 x 448 image (256 visual tokens) and a model of 45 million fp32 weights, against the same learner on
8 separate packed sequences per group: with the image encoded once per sequence, and once per group. A micro-batch holds
one group in all three cases.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch

from benchmarks.common import Figure, at_least, at_most, in_turns, parser, publish, ratio_figures, seconds
from benchmarks.made_up import MID_SETTINGS, random_learner, scored_groups
from geovlm_ray.config import load_config
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.learner.grpo_learner import GrpoLearner
from geovlm_ray.learner.micro_batches import MicroBatch
from geovlm_ray.model.families import base_model
from geovlm_ray.model.logprobs import RowLogprobs, TokenScore, token_logprobs
from geovlm_ray.model.prompts import EncodedImages, EncodedPrompt
from geovlm_ray.model.rows import Completion, GroupRow

GROUPS, SIZE, TOKENS = 1, 8, 64
SETTINGS = [
    *MID_SETTINGS,
    f"rollout.max_tokens={TOKENS}",
    "learner.tokens_per_micro_batch=1",
]
ROUNDS = 7
"""Including one warm-up round."""


def main() -> int:
    """Compare gradients and step times, and publish."""
    options = parser(__doc__ or "").parse_args()
    silence_third_party_logs()
    config = load_config("demo", SETTINGS)
    learner = random_learner(config, "small" if options.smoke else "mid")
    groups = scored_groups(config, learner, GROUPS, SIZE, TOKENS)
    shared = learner.row_logprobs
    policies = {
        "shared": shared,
        "images encoded once per group": SeparateSequences(shared, images_once=True),
        "nothing shared": SeparateSequences(shared, images_once=False),
    }
    micro = MicroBatch.of(groups[:1], learner.encode, learner.encoder)
    gradients = {name: gradient(learner, policy, micro) for name, policy in policies.items()}
    contenders = {name: partial(step_seconds, learner, policy, groups) for name, policy in policies.items()}
    measured = in_turns(contenders, 2 if options.smoke else ROUNDS)
    measured = {name: values[1:] for name, values in measured.items()}
    samples = GROUPS * SIZE
    visual = int(micro.row.images.grid_thw.prod(-1).sum()) // 4
    outside = sum(p.numel() for p in learner.model.parameters()) - learner.model.get_input_embeddings().weight.numel()
    figures = [
        Figure("weights outside the embeddings, millions", outside / 1e6),
        Figure("tokens of a prompt", micro.row.groups[0].prompt),
        Figure("visual tokens of a prompt", visual),
        *(Figure(f"{name}: samples/s", samples / sorted(v)[len(v) // 2]) for name, v in measured.items()),
        *ratio_figures(
            "shared / nothing shared, samples/s",
            measured["nothing shared"],
            measured["shared"],
            partial(at_least, limit=2.5),
        ),
        *ratio_figures(
            "shared / images encoded once per group, samples/s",
            measured["images encoded once per group"],
            measured["shared"],
        ),
        *(
            at_most(f"gradient, shared against {name}: relative difference", difference(gradients, name), 1e-5)
            for name in list(policies)[1:]
        ),
    ]
    return publish("shared_prefix", figures, options, settings=SETTINGS)


class SeparateSequences(torch.nn.Module):
    """Policy that computes the same log-probs with a separate copy of the prompt per completion."""

    def __init__(self, shared: RowLogprobs, *, images_once: bool) -> None:
        super().__init__()
        self.shared = shared
        self.images_once = images_once

    def forward(self, row: GroupRow, score: TokenScore = token_logprobs) -> torch.Tensor:
        """Log-prob of every completion token, [N] fp32."""
        completions = row.targets.split(torch.bincount(row.sample).tolist())
        prompts = [p for p, group in zip(prompts_of(row), row.groups, strict=True) for _ in group.completions]
        separate = GroupRow.of(prompts, [[Completion(tokens.tolist())] for tokens in completions])
        return self._once(separate, row) if self.images_once else self.shared(separate)

    def _once(self, separate: GroupRow, row: GroupRow) -> torch.Tensor:
        """Log-probs of the separate sequences, with each group's image features computed once and repeated."""
        inner = base_model(self.shared.model).model
        encode = inner.get_image_features

        def repeated(pixel_values: torch.Tensor, image_grid_thw: torch.Tensor, **settings: object) -> object:
            features = encode(row.images.pixel_values, row.images.grid_thw, **settings)
            per_image = iter(features.pooler_output)
            per_group = [[next(per_image) for _ in range(group.images[0])] for group in row.groups]
            features.pooler_output = tuple(
                image
                for images, group in zip(per_group, row.groups, strict=True)
                for image in images * len(group.completions)
            )
            return features

        inner.get_image_features = repeated
        try:
            return self.shared(separate)
        finally:
            inner.get_image_features = encode


def prompts_of(row: GroupRow) -> list[EncodedPrompt]:
    """The prompts of a row whose completions have no images."""
    grids = row.images.grid_thw.split([group.images[0] for group in row.groups])
    patches = row.images.pixel_values.split([int(grid.prod(-1).sum()) for grid in grids])
    return [
        EncodedPrompt(row.input_ids[group.start : group.prompt_end], EncodedImages(values, grid))
        for group, values, grid in zip(row.groups, patches, grids, strict=True)
    ]


def step_seconds(learner: GrpoLearner, policy: torch.nn.Module, groups: Sequence) -> float:
    """Seconds of a learner step with another policy."""
    return seconds(with_policy(learner, policy, lambda: learner.step(groups)))


def with_policy(learner: GrpoLearner, policy: torch.nn.Module, call: Callable[[], object]) -> Callable[[], object]:
    """The call, wrapped so that the learner uses another policy during it."""

    def run() -> object:
        original, learner.row_logprobs = learner.row_logprobs, policy
        try:
            return call()
        finally:
            learner.row_logprobs = original

    return run


def gradient(learner: GrpoLearner, policy: torch.nn.Module, micro: MicroBatch) -> torch.Tensor:
    """Gradient of a weighted sum of the log-probs with respect to all trained weights, flattened."""
    learner.zero_grad()
    logprobs = policy(micro.row)
    logprobs.mul(torch.linspace(-1, 1, len(logprobs))).sum().backward()
    flat = torch.cat([p.grad.flatten() for p in learner.trained.values() if p.grad is not None])
    learner.zero_grad()
    return flat


def difference(gradients: dict[str, torch.Tensor], name: str) -> float:
    """Relative difference between the gradient of the shared policy and that of the policy ``name``."""
    return float((gradients["shared"] - gradients[name]).norm() / gradients[name].norm())


if __name__ == "__main__":
    sys.exit(main())
