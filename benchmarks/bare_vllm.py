"""vLLM's own ``LLM.generate``, the yardstick of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from geovlm_ray.core.schema import Prompt
from geovlm_ray.rollout.engine import Engine


def generate(engine: Engine, prompts: Sequence[Prompt], **sampling: Any) -> list[Any]:
    """vLLM's outputs for the same prompts, sampling parameters and seeds; ``sampling`` is as in `Engine.sampling`."""
    params = engine.seeded(prompts, engine.sampling(**sampling))
    outputs: list[Any] = engine.llm.generate(engine.inputs(prompts), params, use_tqdm=False)
    return outputs
