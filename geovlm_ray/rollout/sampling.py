"""vLLM sampling parameters for completions that the learner can train on."""

from __future__ import annotations

import copy
import math
from typing import Any

from transformers import ProcessorMixin

from geovlm_ray.model.prompts import banned_token_ids
from geovlm_ray.rollout.config import RolloutConfig


def banned_token_bias(processor: ProcessorMixin, vocabulary: int) -> dict[int, float]:
    """Logit bias that prevents sampling of the ids of `banned_token_ids`.

    Not `allowed_token_ids`: Model Runner V2, vLLM's default on CUDA, accepts at most 1,024 of them per request.
    """
    return dict.fromkeys(banned_token_ids(processor, vocabulary), -math.inf)


def sampling_params(
    config: RolloutConfig,
    logit_bias: dict[int, float],
    *,
    group_size: int | None = None,
    max_tokens: int | None = None,
    greedy: bool = False,
) -> Any:
    """The `vllm.SamplingParams` of a request; None selects the configured value."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=1 if greedy else group_size or config.group_size,
        temperature=0.0 if greedy else config.temperature,
        max_tokens=max_tokens or config.max_tokens,
        logprobs=0,
        flat_logprobs=True,
        logit_bias=logit_bias,
        # The engine decodes finished completions.
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        # A deep copy per request takes milliseconds.
        skip_clone=True,
    )


def with_seed(params: Any, seed: int) -> Any:
    """A copy of the sampling parameters with a seed; completion k of the group is drawn with ``seed + k``."""
    seeded = copy.copy(params)
    seeded.seed = seed
    return seeded
