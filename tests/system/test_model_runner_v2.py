"""Sampling parameters pass the request checks of vLLM's Model Runner V2, the default on CUDA; runs on a CPU."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.random_model import fill_vocabulary
from geovlm_ray.config import load_config
from geovlm_ray.model.loading import load_processor, model_folder
from geovlm_ray.rollout.sampling import banned_token_bias, sampling_params

pytestmark = pytest.mark.slow
VOCABULARY, TOKENS = 151_936, 151_665


class FakeStagedBuffer:
    """Records what would be copied to the device."""

    def __init__(self) -> None:
        self.np = np.zeros(1, dtype=np.int32)
        self.written: list[Any] = []

    def stage_write(self, row: int, start: int, values: Any) -> None:
        self.written = list(values)


def logit_bias_state() -> Any:
    """V2's logit-bias state with fake device buffers."""
    from vllm.v1.worker.gpu.sample.logit_bias import LogitBiasState

    state: Any = object.__new__(LogitBiasState)
    state.prompt_len_np, state.use_logit_bias = np.zeros(1, dtype=np.int32), np.zeros(1, dtype=bool)
    for name in ("allowed_token_ids", "logit_bias", "stop_token_ids"):
        setattr(state, name, FakeStagedBuffer())
        setattr(state, f"num_{name}", FakeStagedBuffer())
    state.logit_bias_token_ids, state.min_lens, state.restore_when_all_masked = (
        FakeStagedBuffer(),
        FakeStagedBuffer(),
        FakeStagedBuffer(),
    )
    return state


def test_request_with_the_full_vocabulary_is_accepted(tmp_path: Path) -> None:
    from vllm import SamplingParams

    folder = tmp_path / "model"
    shutil.copytree(model_folder("tiny"), folder)
    fill_vocabulary(folder / "tokenizer.json", TOKENS)
    processor = load_processor(folder)
    assert len(processor.tokenizer) == TOKENS
    bias = banned_token_bias(processor, VOCABULARY)
    assert processor.image_token_id in bias
    assert processor.tokenizer.eos_token_id not in bias
    assert bias.keys() >= set(range(TOKENS, VOCABULARY))
    state = logit_bias_state()
    for greedy in (False, True):
        assert state.add_request(0, sampling_params(load_config("geovlm-r1").rollout, bias, greedy=greedy))
        assert state.logit_bias_token_ids.written == list(bias)
        assert set(state.logit_bias.written) == {-math.inf}
    allowed = [i for i in range(VOCABULARY) if i not in bias]
    with pytest.raises(ValueError, match="Too many allowed token IDs"):
        state.add_request(0, SamplingParams(allowed_token_ids=allowed))
