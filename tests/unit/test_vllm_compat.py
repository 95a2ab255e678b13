"""Reading of vLLM's scheduler, with scheduler states as on CUDA."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from geovlm_ray.rollout import vllm_compat


def engine(**completions: tuple[str, int, dict[str, int]]) -> Any:
    """An engine with these completions: request id, completion index and scheduler state by internal id."""
    parents = {request: SimpleNamespace(external_req_id=request) for request, _, _ in completions.values()}
    states = {
        key: SimpleNamespace(parent_req=parents[request], external_req_id=key, request_index=index)
        for key, (request, index, _) in completions.items()
    }
    scheduled = {key: SimpleNamespace(**state) for key, (_, _, state) in completions.items()}
    core = SimpleNamespace(scheduler=SimpleNamespace(requests=scheduled))
    return SimpleNamespace(
        llm_engine=SimpleNamespace(
            engine_core=SimpleNamespace(engine_core=core), output_processor=SimpleNamespace(request_states=states)
        )
    )


def state(computed: int, prompt: int = 30, output: int = 0, placeholders: int = 0) -> dict[str, int]:
    return {
        "num_computed_tokens": computed,
        "num_prompt_tokens": prompt,
        "num_output_tokens": output,
        "num_output_placeholders": placeholders,
    }


def test_tokens_of_a_step_in_progress_are_counted() -> None:
    llm = engine(a=("0", 0, state(34, output=4, placeholders=1)), b=("0", 1, state(34, output=4)))
    assert vllm_compat.num_generated_tokens(llm) == {("0", 0): 5, ("0", 1): 4}


def test_only_requests_between_two_chunks_are_partly_prefilled() -> None:
    llm = engine(
        waiting=("0", 0, state(0)),
        between=("1", 0, state(16)),
        sibling=("1", 1, state(0)),
        prefilled=("2", 0, state(30, placeholders=1)),
        decoding=("3", 0, state(33, output=3)),
    )
    assert vllm_compat.partly_prefilled(llm) == ["1"]
