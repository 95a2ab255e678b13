"""Overhead of a learner step over a bare forward and backward pass on the same packed tokens.

``python -m benchmarks.learner [--json OUT]`` (about 6 minutes). A learner step (advantages, encoded prompts, positions,
log-probs, loss, gradient norm, optimizer, metrics) on groups of 8 completions of 64 tokens with one 448 x 448 image
each and a model of 45 million fp32 weights, against transformers' forward pass, the output layer, cross-entropy and
backward pass on the same rows, with the input tensors prepared in advance. Then steps on new prompts, encoded during
the step before or in the step itself. Last, a step on a group of a size that GPUs train on, 8 completions of 512
tokens, against the same step with one attention mask of the row's size.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from benchmarks.common import ROUNDS, Figure, at_least, pairs, parser, publish, ratio_figures
from benchmarks.made_up import MID_SETTINGS, random_learner, scored_groups
from geovlm_ray.config import Config, load_config
from geovlm_ray.core.schema import Prompt, SampleGroup
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.learner.grpo_learner import GrpoLearner
from geovlm_ray.learner.micro_batches import MicroBatch, split_into_micro_batches
from geovlm_ray.model.families import base_model, family_of
from geovlm_ray.model.shared_prefix import IMPLEMENTATION, SharedPrefix

GROUPS, SIZE, TOKENS = 4, 8, 64
LONG, LONG_ROUNDS = 512, 2
STORED = "stored_mask"
"""Name of an attention implementation with a stored mask."""
SETTINGS = [
    *MID_SETTINGS,
    f"rollout.max_tokens={TOKENS}",
    "learner.tokens_per_micro_batch=2048",
]


def main() -> int:
    """Measure and publish."""
    options = parser(__doc__ or "").parse_args()
    silence_third_party_logs()
    config = load_config("demo", SETTINGS)
    learner = random_learner(config, "small" if options.smoke else "mid")
    groups = scored_groups(config, learner, GROUPS, SIZE, TOKENS)
    parts = split_into_micro_batches(groups, learner.encode, config.learner.tokens_per_micro_batch)
    passes = [bare_pass(learner.model, MicroBatch.of(part, learner.encode, learner.encoder)) for part in parts]
    rounds = 1 if options.smoke else ROUNDS
    ours, bare = pairs(lambda: learner.step(groups), lambda: [run() for run in passes], rounds)
    prefetched, cold = pairs(*new_prompt_steps(learner, groups), rounds)
    samples = GROUPS * SIZE
    figures = [
        Figure("passes of a step", len(passes)),
        Figure("learner, samples/s", samples / float(np.median(ours))),
        Figure("bare forward and backward, samples/s", samples / float(np.median(bare))),
        *ratio_figures("learner / bare, samples/s", bare, ours, partial(at_least, limit=0.9)),
        Figure("step with new prompts encoded during the step before, s", float(np.median(prefetched))),
        Figure("step with new prompts encoded in the step, s", float(np.median(cold))),
        *ratio_figures("prefetched / not prefetched, steps/s", cold, prefetched),
        *long_group(config, learner, options.smoke),
    ]
    return publish("learner", figures, options, settings=SETTINGS)


def new_prompt_steps(
    learner: GrpoLearner, groups: Sequence[SampleGroup]
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Steps on prompts that the learner has not seen: encoded during the step before, and in the step itself."""
    batches = (
        [
            replace(g, prompt=Prompt(k, scene_example("object_detection", 1, k * len(groups) + i)))
            for i, g in enumerate(groups)
        ]
        for k in itertools.count()
    )
    upcoming = [next(batches)]

    def prefetched() -> None:
        batch, upcoming[0] = upcoming[0], next(batches)
        learner.step(batch, [group.prompt for group in upcoming[0]])

    def cold() -> None:
        learner.step(next(batches))

    prefetched()
    return prefetched, cold


def long_group(config: Config, learner: GrpoLearner, smoke: bool) -> list[Figure]:
    """A step on long completions with shared-prefix attention, and with a stored mask; the size of the masks."""
    groups = scored_groups(config, learner, 1, SIZE, TOKENS if smoke else LONG)
    row = MicroBatch.of(groups, learner.encode, learner.encoder).row
    family, base = family_of(learner.model), base_model(learner.model)

    def step(attention: str) -> None:
        family.use_attention(base, attention)
        learner.step(groups)

    shared, stored = pairs(lambda: step(IMPLEMENTATION), lambda: step(STORED), 1 if smoke else LONG_ROUNDS)
    family.use_attention(base, IMPLEMENTATION)
    prefix, length = SharedPrefix(row.groups, learner.device), len(row.input_ids)
    masks = {(q.shape[1], k.shape[1]) for (q, k) in prefix.padded[0] if q.shape != k.shape}
    return [
        Figure("long group, tokens of the row", length),
        Figure("long group, stored mask, MB", length**2 * 4 / 1e6),
        Figure("long group, masks of shared-prefix attention, MB", sum(q * k for q, k in masks) * 4 / 1e6),
        Figure("long group, step, s", float(np.median(shared))),
        *ratio_figures("long group, shared prefix / stored mask, steps/s", stored, shared, partial(at_least, limit=1)),
    ]


def stored_mask_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: object,
    *,
    spans: SharedPrefix,
    scaling: float | None = None,
    **settings: object,
) -> tuple[torch.Tensor, None]:
    """The same attention with one mask of the row's size, which all layers share."""
    if spans not in _masks:
        blocked = torch.full((query.shape[2], query.shape[2]), float("-inf"))
        for sequence in (s for group in spans._groups for s in group):
            causal = sequence.keys[None] <= sequence.queries[:, None]
            blocked[sequence.queries[:, None], sequence.keys] = torch.where(causal, 0.0, float("-inf"))
        _masks[spans] = blocked
    mask = _masks[spans]
    output = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, enable_gqa=True)
    return output.transpose(1, 2), None


_masks: WeakKeyDictionary[SharedPrefix, torch.Tensor] = WeakKeyDictionary()
AttentionInterface.register(STORED, stored_mask_attention)


def bare_pass(model: torch.nn.Module, micro: MicroBatch) -> Callable[[], None]:
    """A forward and backward pass over a row, with its input tensors prepared."""
    row = micro.row
    positions = row.positions(model)[:, None]
    inputs = {
        "input_ids": row.input_ids[None],
        "spans": SharedPrefix(row.groups, model.device),
        "pixel_values": row.images.pixel_values,
        "image_grid_thw": row.images.grid_thw,
    }

    def run() -> None:
        hidden = model.model(**inputs, position_ids=positions, use_cache=False).last_hidden_state[0]
        torch.nn.functional.cross_entropy(model.lm_head(hidden[row.logit_positions]), row.targets).backward()
        model.zero_grad()

    return run


if __name__ == "__main__":
    sys.exit(main())
