"""Attention over packed sequences: torch's flash attention as on GPUs, and its replacement where it does not run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from geovlm_ray.config import load_config
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.model import packed_attention, shared_prefix
from geovlm_ray.model.config import ModelConfig
from geovlm_ray.model.families import base_model, family_of
from geovlm_ray.model.loading import load_model, model_folder
from geovlm_ray.model.logprobs import RowLogprobs
from geovlm_ray.model.packed_attention import VISION_ATTENTION
from geovlm_ray.model.rows import Completion, GroupRow
from geovlm_ray.model.shared_prefix import MIN_BUCKET
from geovlm_ray.training.local import make_encoder

LENGTHS = [
    [[5, 3, 5, 4]],
    [[1, 6, 1], [4], [1], [1, 1]],
    [[9], [7, 2]],
    [[MIN_BUCKET + 1, 3, MIN_BUCKET + 2, 2 * MIN_BUCKET + 5]],
]


def plain_varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool = False,
) -> torch.Tensor:
    """``torch.nn.attention.varlen.varlen_attn`` as it is documented, one sequence at a time."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert (int(cu_seq_q.diff().max()), int(cu_seq_k.diff().max())) == (max_q, max_k)
    assert (int(cu_seq_q[-1]), int(cu_seq_k[-1])) == (len(query), len(key))
    outputs = []
    for q, k, v in zip(
        query.split(cu_seq_q.diff().tolist()),
        key.split(cu_seq_k.diff().tolist()),
        value.split(cu_seq_k.diff().tolist()),
        strict=True,
    ):
        heads = query.shape[1] // key.shape[1]
        scores = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(heads, dim=1)) * scale
        if window_size == (-1, 0):
            blocked = torch.ones(scores.shape[1:], dtype=torch.bool).triu(len(k) - len(q) + 1)
            scores = scores.masked_fill(blocked, -math.inf)
        else:
            assert window_size == (-1, -1)
        outputs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v.repeat_interleave(heads, dim=1)))
    return torch.cat(outputs)


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Selects the path of GPUs, with a plain replacement of torch's flash attention; returns its queries."""
    calls: list[torch.Tensor] = []

    def attention(query: torch.Tensor, *arguments: Any, **settings: Any) -> torch.Tensor:
        calls.append(query)
        return plain_varlen_attention(query, *arguments, **settings)

    monkeypatch.setattr(packed_attention, "varlen_attn", attention)
    for module in (packed_attention, shared_prefix):
        monkeypatch.setattr(module, "runs_flash", lambda values: True)
    return calls


def policy(vision_attention: str = "sdpa") -> RowLogprobs:
    model = load_model(ModelConfig(), model_folder("tiny"), torch.device("cpu"), 0)
    family_of(model).use_vision_attention(model, vision_attention)
    return RowLogprobs(model, torch.tensor([1]))


def row(lengths: Sequence[Sequence[int]]) -> GroupRow:
    generator = torch.Generator().manual_seed(0)
    encoder = make_encoder(load_config("demo"), model_folder("tiny"))
    tasks = ("vqa", "temporal_classification", "object_detection", "visual_grounding")
    prompts = [encoder.encode(scene_example(tasks[k], 0, k)) for k in range(len(lengths))]
    completions = [
        [Completion(torch.randint(2, 400, (n,), generator=generator).tolist()) for n in group] for group in lengths
    ]
    return GroupRow.of(prompts, completions)


def values_and_gradients(found: RowLogprobs, inputs: GroupRow) -> list[torch.Tensor]:
    logprobs = found(inputs)
    logprobs.mul(torch.linspace(-1, 1, len(logprobs))).sum().backward()
    return [logprobs.detach(), *(p.grad for p in found.model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_flash_attention_equals_sdpa(lengths: list[list[int]], request: pytest.FixtureRequest) -> None:
    inputs = row(lengths)
    expected = values_and_gradients(policy(), inputs)
    calls = request.getfixturevalue("as_on_a_gpu")
    flash = policy(VISION_ATTENTION)
    found = values_and_gradients(flash, inputs)
    for values, reference in zip(found, expected, strict=True):
        assert torch.allclose(values, reference, atol=1e-4 * float(reference.abs().max()))
    base = base_model(flash.model)
    assert len(calls) == len(base.model.language_model.layers) + len(base.model.visual.blocks), "one call per layer"


def test_vision_attention_without_flash_equals_sdpa() -> None:
    inputs = row(LENGTHS[0])
    expected, found = (values_and_gradients(policy(name), inputs) for name in ("sdpa", VISION_ATTENTION))
    for values, reference in zip(found, expected, strict=True):
        assert torch.allclose(values, reference, atol=1e-5 * float(reference.abs().max()))


def test_layers_share_one_mask_of_completion_times_prompt_and_completion() -> None:
    length, size = 20, 8
    inputs, found = row([[length + 1] * size]), policy()
    (group,) = inputs.groups
    masks = {}
    tokens = size * length
    shapes = {(length, group.prompt + length), (tokens, group.prompt + tokens)}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tuple(tensor.shape[-2:]) in shapes:
            masks[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found(inputs)
    assert list(masks.values()) == [length * (group.prompt + length) * 4]


def test_gradients_are_the_same_bits_every_time() -> None:
    inputs, threads = row([[60] * 8, [50, 40, 60, 30]]), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first, *others = (values_and_gradients(policy(), inputs) for _ in range(4))
    finally:
        torch.set_num_threads(threads)
    for found in others:
        assert all(torch.equal(values, reference) for values, reference in zip(found, first, strict=True))
