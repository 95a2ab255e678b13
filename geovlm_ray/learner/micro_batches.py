"""Micro-batches: scored groups packed into rows under a token budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from geovlm_ray.core.pixels import PixelSettings
from geovlm_ray.core.schema import Prompt, Sample, SampleGroup
from geovlm_ray.model.prompts import EncodedPrompt, PromptEncoder
from geovlm_ray.model.rows import Completion, GroupRow

Encode = Callable[[Prompt], EncodedPrompt]


@dataclass(frozen=True)
class MicroBatch:
    """Groups of one forward and backward pass: S samples with N tokens that the policy wrote.

    ``rollout_logprobs`` [N] fp32 are the log-probs of these tokens under the engine that sampled them.
    """

    groups: tuple[SampleGroup, ...]
    row: GroupRow
    rollout_logprobs: torch.Tensor

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each sample that the policy wrote."""
        return [len(s.policy_logprobs) for g in self.groups for s in g.samples]

    def per_sample(self, values: dict[int, np.ndarray]) -> torch.Tensor:
        """Concatenate per-sample values, keyed by group id, into one tensor [S] fp32."""
        return torch.tensor(np.concatenate([values[g.group_id] for g in self.groups]), dtype=torch.float32)

    def per_group(self, values: torch.Tensor) -> dict[int, torch.Tensor]:
        """Per-token values [N] of each group, [tokens], keyed by group id."""
        counts = [sum(len(s.policy_logprobs) for s in g.samples) for g in self.groups]
        return {g.group_id: row for g, row in zip(self.groups, values.split(counts), strict=True)}

    @classmethod
    def of(cls, groups: Sequence[SampleGroup], encode: Encode, encoder: PromptEncoder) -> MicroBatch:
        """Pack groups into one row; ``encode`` returns their prompts, ``encoder`` encodes images of completions."""
        completions = [[_completion(s, encoder, g.prompt.example.pixels) for s in g.samples] for g in groups]
        row = GroupRow.of([encode(group.prompt) for group in groups], completions)
        logprobs = [lp for g in groups for s in g.samples for lp in s.policy_logprobs]
        return cls(tuple(groups), row, torch.tensor(logprobs, dtype=torch.float32))


def _completion(sample: Sample, encoder: PromptEncoder, pixels: PixelSettings) -> Completion:
    images = encoder.encode_images(sample.images, pixels) if sample.images else None
    return Completion(sample.token_ids, sample.loss_mask or None, images)


def split_into_micro_batches(groups: Sequence[SampleGroup], encode: Encode, budget: int) -> list[list[SampleGroup]]:
    """Split groups, in order, into parts of at most ``budget`` tokens; a prompt counts once per group.

    A group is never split: one above the budget forms its own part.
    """
    parts: list[list[SampleGroup]] = []
    remaining = 0
    for group in groups:
        length = len(encode(group.prompt).input_ids) + sum(len(s.token_ids) for s in group.samples)
        if not parts or length > remaining:
            parts.append([])
            remaining = budget
        parts[-1].append(group)
        remaining -= length
    return parts
