"""Scored groups as rows for the model, as many at a time as a budget of tokens allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from geovlm_ray.policy.prompts import EncodedPrompt
from geovlm_ray.policy.shared_prefix import GroupRow
from geovlm_ray.schema import Example, SampleGroup


@dataclass(frozen=True)
class MicroBatch:
    """Groups of one forward and backward pass, S samples with N tokens.

    ``drawn`` [N] fp32 are the log-probs with which the engine drew the tokens.
    """

    groups: tuple[SampleGroup, ...]
    row: GroupRow
    drawn: torch.Tensor

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sample."""
        return [len(s.token_ids) for g in self.groups for s in g.samples]

    def per_sample(self, values: dict[int, np.ndarray]) -> torch.Tensor:
        """Values that are known by group as one tensor, [S] fp32."""
        return torch.tensor(np.concatenate([values[g.group_id] for g in self.groups]), dtype=torch.float32)


def micro_batches(
    groups: Sequence[SampleGroup], encode: Callable[[Example], EncodedPrompt], budget: int
) -> Iterator[MicroBatch]:
    """Groups in their order, cut where the next one would exceed ``budget`` tokens; its prompt counts once."""
    chosen: list[tuple[SampleGroup, EncodedPrompt]] = []
    tokens = 0
    for group in groups:
        prompt = encode(group.prompt.example)
        length = len(prompt.input_ids) + sum(len(s.token_ids) for s in group.samples)
        if chosen and tokens + length > budget:
            yield _micro_batch(chosen)
            chosen, tokens = [], 0
        chosen.append((group, prompt))
        tokens += length
    if chosen:
        yield _micro_batch(chosen)


def _micro_batch(chosen: Sequence[tuple[SampleGroup, EncodedPrompt]]) -> MicroBatch:
    groups = tuple(group for group, _ in chosen)
    row = GroupRow.of([prompt for _, prompt in chosen], [[s.token_ids for s in g.samples] for g in groups])
    drawn = [lp for g in groups for s in g.samples for lp in s.logprobs]
    return MicroBatch(groups, row, torch.tensor(drawn, dtype=torch.float32))
