"""What it saves the learner to encode each group's images and prompt once.

``python -m benchmarks.shared_prefix [--json OUT]`` (about 5 minutes). A learner step on groups of 8 completions of 64
tokens behind one 448 x 448 image (256 visual tokens), with a model of 45 million weights in fp32, against the same
learner given 8 separate packed sequences a group: with the image encoded once for each, and once for the group. A pass
holds one group in all three.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch

from benchmarks.common import Figure, at_least, at_most, in_turns, parser, publish, ratio_figures, seconds
from benchmarks.made_up import MID_SETTINGS, mid_learner, scored_groups
from geovlm_ray.config import load_config
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.learner.grpo_learner import GrpoLearner
from geovlm_ray.learner.micro_batches import MicroBatch
from geovlm_ray.model.forward import base_model
from geovlm_ray.model.shared_prefix import GroupRow, RowLogprobs

GROUPS, SIZE, TOKENS = 1, 8, 64
SETTINGS = [
    *MID_SETTINGS,
    f"rollout.max_tokens={TOKENS}",
    "learner.tokens_per_micro_batch=1",
]


def main() -> int:
    """Compare gradients and times, and publish."""
    options = parser(__doc__ or "").parse_args()
    silence_third_party_logs()
    config = load_config("demo", SETTINGS)
    learner = mid_learner(config)
    groups = scored_groups(config, learner, GROUPS, SIZE, TOKENS)
    shared = learner.policy
    policies = {
        "shared": shared,
        "images encoded once per group": SeparateSequences(shared, images_once=True),
        "nothing shared": SeparateSequences(shared, images_once=False),
    }
    micro = MicroBatch.of(groups[:1], learner.encoder.encode)
    gradients = {name: gradient(learner, policy, micro) for name, policy in policies.items()}
    measured = in_turns({name: partial(step_seconds, learner, policy, groups) for name, policy in policies.items()}, 7)
    measured = {name: values[1:] for name, values in measured.items()}
    samples = GROUPS * SIZE
    visual = int(micro.row.image_grid_thw.prod(-1).sum()) // 4
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
    return publish("shared_prefix", figures, options.json, settings=SETTINGS)


class SeparateSequences(torch.nn.Module):
    """Log-probs of the same completions, each behind a prompt of its own."""

    def __init__(self, shared: RowLogprobs, *, images_once: bool) -> None:
        super().__init__()
        self.shared = shared
        self.images_once = images_once

    def forward(self, row: GroupRow) -> torch.Tensor:
        """Log-probability of every completion token, [N] fp32."""
        completions = row.targets.split(torch.bincount(row.sample).tolist())
        sizes = [len(group.completions) for group in row.groups]
        prompts = [prompt for prompt, size in zip(row.prompts, sizes, strict=True) for _ in range(size)]
        separate = GroupRow.of(prompts, [[tokens.tolist()] for tokens in completions])
        return self._once(separate, row, sizes) if self.images_once else self.shared(separate)

    def _once(self, separate: GroupRow, row: GroupRow, sizes: Sequence[int]) -> torch.Tensor:
        """The row of separate sequences with what the vision tower makes of each group's images repeated."""
        inner = base_model(self.shared.model).model
        encode = inner.get_image_features

        def repeated(pixel_values: torch.Tensor, image_grid_thw: torch.Tensor, **settings: object) -> object:
            seen = encode(row.pixel_values, row.image_grid_thw, **settings)
            pictures = iter(seen.pooler_output)
            of_groups = [[next(pictures) for _ in prompt.image_grid_thw] for prompt in row.prompts]
            seen.pooler_output = tuple(
                picture for pictures, size in zip(of_groups, sizes, strict=True) for picture in pictures * size
            )
            return seen

        inner.get_image_features = repeated
        try:
            return self.shared(separate)
        finally:
            inner.get_image_features = encode


def step_seconds(learner: GrpoLearner, policy: torch.nn.Module, groups: Sequence) -> float:
    """A learner step with a policy in place of its own."""
    return seconds(with_policy(learner, policy, lambda: learner.step(groups)))


def with_policy(learner: GrpoLearner, policy: torch.nn.Module, call: Callable[[], object]) -> Callable[[], object]:
    """A call during which the learner has another policy."""

    def run() -> object:
        own, learner.policy = learner.policy, policy
        try:
            return call()
        finally:
            learner.policy = own

    return run


def gradient(learner: GrpoLearner, policy: torch.nn.Module, micro: MicroBatch) -> torch.Tensor:
    """The gradient of a weighted sum of the log-probs, of all weights in one row."""
    learner.optimizer.zero_grad()
    logprobs = policy(micro.row)
    logprobs.mul(torch.linspace(-1, 1, len(logprobs))).sum().backward()
    found = torch.cat([p.grad.flatten() for p in learner.trained.values() if p.grad is not None])
    learner.optimizer.zero_grad()
    return found


def difference(gradients: dict[str, torch.Tensor], name: str) -> float:
    """Norm of the difference to the gradient with everything shared, over the norm of the one named."""
    return float((gradients["shared"] - gradients[name]).norm() / gradients[name].norm())


if __name__ == "__main__":
    sys.exit(main())
