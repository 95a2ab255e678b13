"""Linear attention over a row: a prompt once, then each of its completions from the state at its end.

Values and gradients equal those of whole sequences, as with `geovlm_ray.model.shared_prefix`.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.nn.functional import softplus
from transformers.models.qwen3_5.modeling_qwen3_5 import causal_conv1d_fn, torch_chunk_gated_delta_rule


def use_shared_state(layer: nn.Module) -> None:
    """Switch a gated delta rule layer of transformers (Qwen3_5GatedDeltaNet) to rows."""
    layer.forward = functools.partial(_gated_delta_rule, layer)


def _gated_delta_rule(layer: nn.Module, hidden_states: torch.Tensor, *, spans: Any, **settings: object) -> torch.Tensor:
    """Output [1, L, width] of the layer for a row, whose `SharedPrefix` is ``spans``."""
    row = hidden_states[0]
    mixed, decay, beta = layer.in_proj_qkv(row), _decay(layer, row), layer.in_proj_b(row).sigmoid()
    batches, order = spans.padded
    outputs: list[torch.Tensor] = []
    state: Any = None
    for at_queries, at_keys in batches:
        starts_group = at_queries.shape == at_keys.shape
        length = at_queries.shape[1]
        reach = at_keys[:, max(0, at_keys.shape[1] - length - layer.conv_kernel_size + 1) :]
        convolved = causal_conv1d_fn(
            _take(mixed, reach).transpose(1, 2),
            layer.conv1d.weight.squeeze(1),
            layer.conv1d.bias,
            activation=layer.activation,
        )[:, :, -length:].transpose(1, 2)
        output, end = torch_chunk_gated_delta_rule(
            *_heads(layer, convolved),
            g=_take(decay, at_queries),
            beta=_take(beta, at_queries),
            initial_state=None if starts_group else state.expand(len(at_queries), -1, -1, -1),
            output_final_state=starts_group,
            use_qk_l2norm_in_kernel=True,
        )
        state = end if starts_group else state
        outputs.append(output.flatten(0, 1))
    values = torch.cat(outputs).index_select(0, order)
    gates = layer.in_proj_z(row).unflatten(-1, (-1, layer.head_v_dim))
    normed = layer.norm(values.flatten(0, 1), gates.flatten(0, 1)).view_as(gates)
    return layer.out_proj(normed.flatten(1))[None]


def _decay(layer: nn.Module, row: torch.Tensor) -> torch.Tensor:
    """Logarithm of the factor by which each token multiplies the state, [L, heads], fp32."""
    return -layer.A_log.float().exp() * softplus(layer.in_proj_a(row).float() + layer.dt_bias)


def _heads(layer: nn.Module, convolved: torch.Tensor) -> list[torch.Tensor]:
    """Query, key and value, [n, T, heads, d] each."""
    query, key, value = convolved.split([layer.key_dim, layer.key_dim, layer.value_dim], dim=-1)
    repeats = layer.num_v_heads // layer.num_k_heads
    query, key = (
        states.unflatten(-1, (-1, layer.head_k_dim)).repeat_interleave(repeats, dim=2) for states in (query, key)
    )
    return [query, key, value.unflatten(-1, (-1, layer.head_v_dim))]


def _take(states: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """States [L, ...] at indices [n, T]; [n, T, ...]. Not by indexing, as in `geovlm_ray.model.shared_prefix`."""
    return states.index_select(0, at.flatten()).unflatten(0, tuple(at.shape))
