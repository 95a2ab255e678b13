"""Rows of every family: log-probs and gradients equal those of whole sequences; two ranks need the same layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.random_families import CONFIGS, build
from geovlm_ray.config import load_config
from geovlm_ray.core.schema import Example
from geovlm_ray.model.families import FAMILIES
from geovlm_ray.model.logprobs import RowLogprobs
from geovlm_ray.model.prompts import PromptEncoder
from geovlm_ray.model.rows import Completion, GroupRow
from tests.unit.datasets import write_image
from tests.unit.plain_forward import plain_logprobs

pytestmark = pytest.mark.slow

COMPLETIONS = [
    [Completion([300, 301, 302, 600]), Completion([310, 600]), Completion([305])],
    [Completion([320, 321, 322, 323, 324])],
    [Completion(list(range(300, 370))), Completion([330, 331, 600])],
]
TOLERANCE = 3e-6


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    """Prompts with one, three and no images, of several sizes."""
    sizes = {"a": (60, 60), "b": (200, 90), "c": (50, 130)}
    for k, (name, size) in enumerate(sizes.items()):
        write_image(tmp_path / f"{name}.png", k, size)
    paths = [str(tmp_path / f"{name}.png") for name in sizes]
    return [Example(str(k), "vqa", tuple(paths[:n]), "what is it ?", "a") for k, n in enumerate((1, 3, 0))]


def test_every_family_has_a_tiny_model() -> None:
    assert CONFIGS.keys() == FAMILIES.keys()


@pytest.mark.parametrize("resolution", ["fixed", "native"])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_rows_equal_whole_sequences(model_type: str, resolution: str, examples: list[Example]) -> None:
    model, processor = build(model_type)
    config = load_config("demo", [f"prompt.resolution={resolution}", "prompt.image_size=96"])
    prompts = [PromptEncoder(processor, config.prompt).encode(example) for example in examples]
    banned = torch.tensor([1, 5])
    expected = torch.cat(
        [
            plain_logprobs(model, prompt, completion, banned)
            for prompt, group in zip(prompts, COMPLETIONS, strict=True)
            for completion in group
        ]
    )
    expected.sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    found = RowLogprobs(model, banned)(GroupRow.of(prompts, COMPLETIONS))
    assert torch.allclose(found, expected, rtol=0, atol=TOLERANCE)
    found.sum().backward()
    largest = max(float(g.abs().max()) for g in gradients.values() if g is not None)
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, gradients[name], rtol=1e-4, atol=TOLERANCE * largest), name


@pytest.mark.parametrize("model_type", CONFIGS)
def test_row_without_images_gives_every_parameter_a_gradient(model_type: str, examples: list[Example]) -> None:
    model, processor = build(model_type)
    prompt = PromptEncoder(processor, load_config("demo").prompt).encode(examples[2])
    RowLogprobs(model, torch.tensor([1]))(GroupRow.of([prompt], COMPLETIONS[:1])).sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert not without
    assert not any(p.grad.any() for name, p in model.named_parameters() if FAMILIES[model_type].is_vision(name))
