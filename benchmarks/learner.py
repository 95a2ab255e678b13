"""What the learner adds to a bare forward and backward pass over the same packed tokens.

``python -m benchmarks.learner [--json OUT]`` (about 3 minutes). A learner step (advantages, encoded prompts, positions,
log-probs, loss, gradient norm, optimizer, metrics) on groups of 8 completions of 64 tokens behind one 448 x 448 image,
with a model of 45 million weights in fp32, against transformers' forward pass, the output layer, a cross-entropy and
the backward pass over the same rows, whose tensors are ready.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from benchmarks.common import Figure, at_least, pairs, parser, publish, ratio_figures
from benchmarks.made_up import MID_SETTINGS, mid_learner, scored_groups
from geovlm_ray.config import load_config
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.learner.micro_batches import MicroBatch, cut
from geovlm_ray.model.shared_prefix import SharedPrefix

GROUPS, SIZE, TOKENS = 4, 8, 64
SETTINGS = [
    *MID_SETTINGS,
    f"rollout.max_tokens={TOKENS}",
    "learner.tokens_per_micro_batch=2048",
]


def main() -> int:
    """Compare, and publish."""
    options = parser(__doc__ or "").parse_args()
    silence_third_party_logs()
    config = load_config("demo", SETTINGS)
    learner = mid_learner(config)
    groups = scored_groups(config, learner, GROUPS, SIZE, TOKENS)
    parts = cut(groups, learner.encoder.encode, config.learner.tokens_per_micro_batch)
    passes = [bare_pass(learner.model, MicroBatch.of(part, learner.encoder.encode)) for part in parts]
    ours, bare = pairs(lambda: learner.step(groups), lambda: [run() for run in passes])
    samples = GROUPS * SIZE
    figures = [
        Figure("passes of a step", len(passes)),
        Figure("learner, samples/s", samples / float(np.median(ours))),
        Figure("bare forward and backward, samples/s", samples / float(np.median(bare))),
        *ratio_figures("learner / bare, samples/s", bare, ours, partial(at_least, limit=0.9)),
    ]
    return publish("learner", figures, options.json, settings=SETTINGS)


def bare_pass(model: torch.nn.Module, micro: MicroBatch) -> Callable[[], None]:
    """A forward and backward pass over a row whose tensors are ready."""
    row = micro.row
    positions = row.positions(model.model)[:, None]
    inputs = {
        "input_ids": row.input_ids[None],
        "attention_mask": {"full_attention": SharedPrefix(row.groups, model.device)},
        "pixel_values": row.pixel_values,
        "image_grid_thw": row.image_grid_thw,
    }

    def run() -> None:
        hidden = model.model(**inputs, position_ids=positions, use_cache=False).last_hidden_state[0]
        torch.nn.functional.cross_entropy(model.lm_head(hidden[row.predicting]), row.targets).backward()
        model.zero_grad()

    return run


if __name__ == "__main__":
    sys.exit(main())
