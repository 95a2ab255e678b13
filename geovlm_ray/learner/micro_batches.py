"""Micro-batches: scored groups packed into rows under a token budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from geovlm_ray.core.schema import Example, SampleGroup
from geovlm_ray.model.prompts import EncodedPrompt
from geovlm_ray.model.shared_prefix import GroupRow


@dataclass(frozen=True)
class MicroBatch:
    """Groups of one forward and backward pass: S samples with N completion tokens.

    ``rollout_logprobs`` [N] fp32 are the log-probs of the tokens under the engine that sampled them.
    """

    groups: tuple[SampleGroup, ...]
    row: GroupRow
    rollout_logprobs: torch.Tensor

    @property
    def lengths(self) -> list[int]:
        """Token count of each sample."""
        return [len(s.token_ids) for g in self.groups for s in g.samples]

    def per_sample(self, values: dict[int, np.ndarray]) -> torch.Tensor:
        """Concatenate per-sample values, keyed by group id, into one tensor [S] fp32."""
        return torch.tensor(np.concatenate([values[g.group_id] for g in self.groups]), dtype=torch.float32)

    @classmethod
    def of(cls, groups: Sequence[SampleGroup], encode: Callable[[Example], EncodedPrompt]) -> MicroBatch:
        """Pack groups into one row."""
        prompts = [encode(group.prompt.example) for group in groups]
        row = GroupRow.of(prompts, [[s.token_ids for s in g.samples] for g in groups])
        logprobs = [lp for g in groups for s in g.samples for lp in s.logprobs]
        return cls(tuple(groups), row, torch.tensor(logprobs, dtype=torch.float32))


def split_into_micro_batches(
    groups: Sequence[SampleGroup], encode: Callable[[Example], EncodedPrompt], budget: int
) -> list[list[SampleGroup]]:
    """Split groups, in order, into parts of at most ``budget`` tokens; a prompt counts once per group.

    A group is never split: one above the budget forms its own part.
    """
    parts: list[list[SampleGroup]] = []
    remaining = 0
    for group in groups:
        length = len(encode(group.prompt.example).input_ids) + sum(len(s.token_ids) for s in group.samples)
        if not parts or length > remaining:
            parts.append([])
            remaining = budget
        parts[-1].append(group)
        remaining -= length
    return parts
