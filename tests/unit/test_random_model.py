"""Random models of benchmarks: images are read with a vocabulary of the real size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.random_model import SHAPES, write_model
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.model.config import ModelConfig, PromptConfig
from geovlm_ray.model.loading import load_model, load_processor
from geovlm_ray.model.logprobs import RowLogprobs
from geovlm_ray.model.prompts import PromptEncoder, banned_token_ids
from geovlm_ray.model.rows import Completion, GroupRow
from tests.unit.plain_forward import plain_logprobs

pytestmark = pytest.mark.slow

VOCABULARY = 151_936


def test_log_probs_with_the_real_vocabulary_size(tmp_path: Path) -> None:
    write_model(tmp_path, replace(SHAPES["small"], text={**SHAPES["small"].text, "vocab_size": VOCABULARY}))
    processor = load_processor(tmp_path)
    model = load_model(ModelConfig(), tmp_path, torch.device("cpu"), seed=0)
    prompt = PromptEncoder(processor, PromptConfig(image_size=112)).encode(
        scene_example("temporal_classification", 0, 1)
    )
    banned = torch.tensor(banned_token_ids(processor, VOCABULARY))
    completions = [Completion([300, 301, processor.tokenizer.eos_token_id]), Completion([VOCABULARY - 300])]
    with torch.no_grad():
        expected = torch.cat([plain_logprobs(model, prompt, completion, banned) for completion in completions])
        found = RowLogprobs(model, banned)(GroupRow.of([prompt], [completions]))
    assert torch.isfinite(found).all()
    assert torch.allclose(found, expected, atol=1e-4)
