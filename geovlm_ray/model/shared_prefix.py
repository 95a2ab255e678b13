"""Shared-prefix attention: each completion of a row attends to its prompt and to itself.

Values and gradients equal those of whole sequences, although a prompt and its images are in the row only once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface

from geovlm_ray.model.packed_attention import Lengths, flash_attention, runs_flash
from geovlm_ray.model.rows import GroupSpan

IMPLEMENTATION = "shared_prefix"
MIN_BUCKET = 64
"""Completions of a group up to this length are padded to the longest of them; longer ones by at most half."""


@dataclass(frozen=True)
class _Sequence:
    """A causal sequence by its indices in the row; the last query attends to all keys."""

    queries: torch.Tensor
    keys: torch.Tensor


@dataclass(frozen=True)
class _Padded:
    """Sequences of one group, padded to L queries: indices in the row [n, L] and [n, K].

    ``real`` [n, L] is False for padding.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    real: torch.Tensor

    @classmethod
    def of(cls, sequences: Sequence[_Sequence]) -> _Padded:
        longest = max(len(s.queries) for s in sequences)
        queries = torch.stack([pad(s.queries, (0, longest - len(s.queries)), value=-1) for s in sequences])
        keys = torch.stack([pad(s.keys, (0, longest - len(s.queries)), value=0) for s in sequences])
        return cls(queries.clamp(min=0), keys, queries >= 0)


class SharedPrefix:
    """How the tokens of a row attend to each other in every layer; passed to the layers as ``spans``.

    Every prompt, and every completion after its prompt, is a causal sequence. The prompt of a group with one completion
    belongs to the sequence of the completion.
    """

    def __init__(self, groups: Sequence[GroupSpan], device: torch.device) -> None:
        self.device = device
        self._groups = [list(_sequences(group)) for group in groups]
        self._masks: dict[tuple[int, int, torch.dtype], torch.Tensor] = {}

    @cached_property
    def packed(self) -> tuple[torch.Tensor, Lengths, Lengths]:
        """Indices of the keys of all sequences, one after another, and the lengths of queries and keys."""
        sequences = [sequence for group in self._groups for sequence in group]
        keys = torch.cat([s.keys for s in sequences]).to(self.device)
        query_lengths = Lengths.of([len(s.queries) for s in sequences], self.device)
        return keys, query_lengths, Lengths.of([len(s.keys) for s in sequences], self.device)

    @cached_property
    def padded(self) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
        """Indices of queries and keys of each batch, and for each token of the row its index in their outputs."""
        batches = [_Padded.of(bucket) for group in self._groups for bucket in _buckets(group)]
        positions = torch.cat([batch.queries[batch.real] for batch in batches])
        outputs = torch.cat([batch.real.flatten() for batch in batches]).nonzero()[:, 0]
        order = torch.empty_like(outputs).scatter_(0, positions, outputs)
        return [(b.queries.to(self.device), b.keys.to(self.device)) for b in batches], order.to(self.device)

    def mask(self, queries: int, keys: int, dtype: torch.dtype) -> torch.Tensor:
        """Additive causal mask [queries, keys] that lets the last query attend to all keys."""
        key = (queries, keys, dtype)
        if key not in self._masks:
            blocked = torch.full((queries, keys), float("-inf"), dtype=dtype, device=self.device)
            self._masks[key] = blocked.triu(keys - queries + 1)
        return self._masks[key]


def _sequences(group: GroupSpan) -> Iterator[_Sequence]:
    if len(group.completions) == 1:
        everything = torch.arange(group.start, group.end)
        yield _Sequence(everything, everything)
        return
    prompt = torch.arange(group.start, group.prompt_end)
    yield _Sequence(prompt, prompt)
    for own in torch.arange(group.prompt_end, group.end).split(list(group.completions)):
        if len(own):
            yield _Sequence(own, torch.cat([prompt, own]))


def _buckets(sequences: Sequence[_Sequence]) -> Iterator[list[_Sequence]]:
    """The first sequence, which is the prompt or the whole group, then the others by similar length."""
    yield list(sequences[:1])
    buckets: dict[int, list[_Sequence]] = {}
    for sequence in sequences[1:]:
        buckets.setdefault(max(MIN_BUCKET, len(sequence.queries) - 1).bit_length(), []).append(sequence)
    yield from buckets.values()


def shared_prefix_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    spans: SharedPrefix,
    scaling: float | None = None,
    **settings: object,
) -> tuple[torch.Tensor, None]:
    """Attention within each group of a row; query, key and value are [1, heads, L, d], the result [1, L, heads, d]."""
    if runs_flash(value):
        indices, queries, keys = spans.packed
        packed_key, packed_value = (states[0].transpose(0, 1).index_select(0, indices) for states in (key, value))
        output = flash_attention(
            query[0].transpose(0, 1), packed_key, packed_value, queries, keys, scaling, causal=True
        )
        return output[None], None
    batches, order = spans.padded
    outputs = []
    for at_queries, at_keys in batches:
        square = at_queries.shape == at_keys.shape
        output = scaled_dot_product_attention(
            _take(query, at_queries),
            _take(key, at_keys),
            _take(value, at_keys),
            attn_mask=None if square else spans.mask(at_queries.shape[1], at_keys.shape[1], query.dtype),
            is_causal=square,
            scale=scaling,
            enable_gqa=True,
        )
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, order)[None], None


def _take(states: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """States [1, heads, L, d] at indices [n, K]; [n, heads, K, d].

    Not by indexing: on the CPU, its gradient sums what several indices share in an order that varies.
    """
    return states[0].index_select(1, at.flatten()).unflatten(1, tuple(at.shape)).transpose(0, 1)


AttentionInterface.register(IMPLEMENTATION, shared_prefix_attention)
