"""Scored groups as rows for the model, as many at a time as a budget of tokens allows."""

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
    """Groups of one forward and backward pass, S samples with N tokens.

    ``rollout_logprobs`` [N] fp32 are the log-probs of the tokens under the engine that sampled them.
    """

    groups: tuple[SampleGroup, ...]
    row: GroupRow
    rollout_logprobs: torch.Tensor

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sample."""
        return [len(s.token_ids) for g in self.groups for s in g.samples]

    def per_sample(self, values: dict[int, np.ndarray]) -> torch.Tensor:
        """Values that are known by group as one tensor, [S] fp32."""
        return torch.tensor(np.concatenate([values[g.group_id] for g in self.groups]), dtype=torch.float32)

    @classmethod
    def of(cls, groups: Sequence[SampleGroup], encode: Callable[[Example], EncodedPrompt]) -> MicroBatch:
        """Groups as one row."""
        prompts = [encode(group.prompt.example) for group in groups]
        row = GroupRow.of(prompts, [[s.token_ids for s in g.samples] for g in groups])
        logprobs = [lp for g in groups for s in g.samples for lp in s.logprobs]
        return cls(tuple(groups), row, torch.tensor(logprobs, dtype=torch.float32))


def cut(
    groups: Sequence[SampleGroup], encode: Callable[[Example], EncodedPrompt], budget: int
) -> list[list[SampleGroup]]:
    """Groups in their order, cut where the next one would exceed ``budget`` tokens; its prompt counts once."""
    parts: list[list[SampleGroup]] = []
    room = 0
    for group in groups:
        length = len(encode(group.prompt.example).input_ids) + sum(len(s.token_ids) for s in group.samples)
        if not parts or length > room:
            parts.append([])
            room = budget
        parts[-1].append(group)
        room -= length
    return parts
