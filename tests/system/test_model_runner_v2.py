"""Sampling parameters pass the request checks of vLLM's Model Runner V2, the default on CUDA; runs on a CPU."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.random_model import fill_vocabulary
from geovlm_ray.config import load_config
from geovlm_ray.model.loading import load_processor, model_folder
from geovlm_ray.rollout.sampling import banned_token_bias, sampling_params, with_seed

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


def test_every_completion_of_a_group_gets_its_own_seed() -> None:
    from vllm.v1.engine.parallel_sampling import ParentRequest
    from vllm.v1.worker.gpu.sample.states import SamplingStates

    group = 4
    states: Any = object.__new__(SamplingStates)
    states.vocab_size = VOCABULARY
    for name in ("temperature", "top_k", "top_p", "min_p", "seeds"):
        setattr(states, name, SimpleNamespace(np=np.zeros(group)))
    states.seeds_set, states.num_logprobs = np.zeros(group, dtype=bool), np.zeros(group)
    params = sampling_params(load_config("geovlm-r1").rollout, {}, group_size=group)
    request: Any = SimpleNamespace(request_id="0-a", external_req_id="0", params=with_seed(params, 7))
    parent = ParentRequest(request)
    for index in range(group):
        states.add_request(index, parent.get_child_info(index)[1])
    assert states.seeds.np.tolist() == [7, 8, 9, 10]
    assert states.seeds_set.all()
    assert params.seed is None, "parameters that prompts share got a seed"
