"""Code that depends on the vLLM version or backend; tested with 0.32 on CPU.

vLLM runs in the calling process, so weights are passed as tensors, without a copy through a pipe.
"""

from __future__ import annotations

import gc
import itertools
import os
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn

if TYPE_CHECKING:
    from vllm import LLM

FILE = "file://"
_CLIENTS: weakref.WeakSet[Any] = weakref.WeakSet()
"""Engines of this process."""


def prepare_environment(kv_cache_gb: float, workers: int) -> None:
    """Set the environment variables that vLLM reads at import; existing values are kept.

    On CPUs, several workers divide the cores, unless there are fewer.

    Without a GPU, also disables ``torch.compile``: vLLM uses it for one small function of its sampler, where it takes
    longer than it saves.
    """
    defaults = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": str(max(1, round(kv_cache_gb))),
    }
    on_cpu = not torch.cuda.is_available()
    if on_cpu and workers > 1:
        cores = sorted(os.sched_getaffinity(0))
        parts = [cores[i::workers] or cores for i in range(workers)]
        defaults["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(",".join(map(str, part)) for part in parts)
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if on_cpu:
        torch._dynamo.config.disable = True
    from vllm import envs

    # An earlier engine of this process has fixed the values that it read; vLLM 0.26 reads them again.
    if hasattr(envs, "disable_envs_cache"):
        envs.disable_envs_cache()


def version() -> str:
    """The installed version of vLLM."""
    import vllm

    return vllm.__version__


def backend_args(kv_cache_gb: float, gpu_memory_utilization: float) -> dict[str, Any]:
    """Engine arguments that differ between CPU and CUDA.

    vLLM does not start where less of a GPU than ``gpu_memory_utilization`` is free, also if the size of the cache is
    given.
    """
    if not torch.cuda.is_available():
        return {"enforce_eager": True}
    size = {"kv_cache_memory_bytes": int(kv_cache_gb * 2**30)} if kv_cache_gb else {}
    return {"gpu_memory_utilization": gpu_memory_utilization, **size}


def lora_args(rank: int) -> dict[str, Any]:
    """Engine arguments for one LoRA adapter of any rank: vLLM takes some maximum ranks only, and any rank below.

    Rank 0 means no adapter.
    """
    if not rank:
        return {}
    from vllm.config.lora import MaxLoRARanks

    return {
        "enable_lora": True,
        "max_lora_rank": min(r for r in get_args(MaxLoRARanks) if r >= max(8, rank)),
        "max_loras": 1,
    }


def transfer_args(backend: str | None) -> dict[str, Any]:
    """Engine arguments for workers that receive weights themselves."""
    if backend is None:
        return {}
    from vllm.config import WeightTransferConfig

    return {
        "weight_transfer_config": WeightTransferConfig(backend=backend),
        "worker_extension_cls": "geovlm_ray.transport.vllm_workers.WorkerExtension",
    }


def sleep_args(level: int) -> dict[str, Any]:
    """Engine arguments for an engine that sleeps; on the CPU it has no memory to give back."""
    return {"enable_sleep_mode": True, "async_scheduling": False} if level and torch.cuda.is_available() else {}


def sleep(llm: LLM, level: int) -> int:
    """Give back GPU memory; level 1 keeps the weights in host memory, 2 drops them. Returns the bytes given back."""
    before = _free_gpu_bytes()
    llm.sleep(level=level)
    return _free_gpu_bytes() - before


def wake_up(llm: LLM, what: Literal["weights", "kv_cache"]) -> None:
    """Take back the memory that `sleep` gave back; weights of level 2 must be loaded before the cache wakes up."""
    llm.wake_up(tags=[what])


def _free_gpu_bytes() -> int:
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0


def parallel_args(workers: int) -> dict[str, Any]:
    """Engine arguments for weights that are divided over several workers, each a process."""
    return {"tensor_parallel_size": workers, "distributed_executor_backend": "mp"} if workers > 1 else {}


def call_workers(llm: LLM, method: str, **arguments: Any) -> list[Any]:
    """Call a method of every worker; returns their results."""
    return llm.collective_rpc(method, kwargs=arguments)


def settle(llm: LLM) -> None:
    """After the start of an engine, see to its end.

    Remove the rendezvous file of its workers, which a killed engine would leave in the temporary folder. Let the
    engine, when it is garbage collected, release only what is its own while there is a newer engine in this process:
    vLLM would also end the process groups, which that one uses.
    """
    for method in llm.collective_rpc(_rendezvous):
        if method.startswith(FILE):
            Path(method.removeprefix(FILE)).unlink(missing_ok=True)
    client = llm.llm_engine.engine_core
    # vLLM 0.26 has no finalizer.
    if finalizer := getattr(client, "_finalizer", None):
        finalizer.detach()
        _CLIENTS.add(client)
        weakref.finalize(client, _release, client.engine_core)


def _rendezvous(worker: Any) -> str:
    return worker.distributed_init_method


def _release(core: Any) -> None:
    if not _CLIENTS:
        core.shutdown()
        return
    core.structured_output_manager.clear_backend()
    core.model_executor.shutdown()
    core.scheduler.shutdown()
    gc.unfreeze()


def rejection_errors() -> tuple[type[Exception], ...]:
    """Exceptions that vLLM raises for a prompt that it rejects."""
    from vllm.exceptions import VLLMValidationError

    return ValueError, VLLMValidationError


def prepare_input(llm: LLM, inputs: dict[str, Any]) -> dict[str, Any]:
    """Tokenize a prompt and process its images; the result can be added to the engine.

    Raises:
        rejection_errors: vLLM rejects the prompt.
    """
    from vllm.renderers.inputs.preprocess import parse_model_prompt

    engine = llm.llm_engine
    (rendered,) = engine.renderer.render_cmpl([parse_model_prompt(engine.model_config, inputs)])
    return rendered


def keep_sampled_logprobs_only(llm: LLM, completions: int) -> None:
    """Let the request that was added last, of ``completions`` completions, keep the sampled tokens' log-probs alone.

    As ``logprobs`` of a completion, a list with a float for each token. vLLM would also collect ranks, ids and texts,
    which takes half of its time for a token outside of the model.
    """
    for state in itertools.islice(reversed(llm.llm_engine.output_processor.request_states.values()), completions):
        processor = state.logprobs_processor
        values: list[float] = []
        processor.logprobs = values
        processor.update_from_output = partial(_extend_logprobs, values)


def _extend_logprobs(values: list[float], output: Any) -> None:
    if output.new_logprobs is not None:
        values.extend(output.new_logprobs.logprobs[:, 0].tolist())


def adopt_number_of_threads() -> None:
    """Let this thread compute with as many OpenMP threads as the process, before its first computation.

    A new thread has OpenMP's default number until torch sets it. oneDNN would then repack weights for that number with
    a plan that it keeps for all threads, and leave a part of them uninitialised.
    """
    torch.get_num_threads()


@contextmanager
def alone_on_gpu(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Run a block on a stream, after all work that the GPU was given before and ahead of all later work.

    Weights are received on streams of their own, while a step of the engine may still run. None: without a GPU.
    """
    with torch.cuda.stream(stream):
        if stream is not None:
            torch.cuda.synchronize()
        yield
        if stream is not None:
            torch.cuda.synchronize()


def load_weights(llm: LLM, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Replace weights in place; names are those of the Hugging Face model."""
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(tensors), "is_checkpoint_format": True})
    finish_loading(llm)


def finish_loading(llm: LLM) -> None:
    """Update what vLLM derived from the weights that were replaced, and does not update itself."""
    if not torch.cuda.is_available():
        llm.apply_model(_tie_output_layer)


def _tie_output_layer(model: nn.Module) -> None:
    """Update the output layer of a model that ties it to the embedding.

    The CPU backend keeps a repacked copy of it, which reloading the embedding does not update.
    """
    language = model.language_model
    if language.config.tie_word_embeddings:
        language.lm_head.weight = language.model.embed_tokens.weight
        language.lm_head.quant_method.process_weights_after_loading(language.lm_head)


def reset_caches(llm: LLM, *, idle: bool) -> None:
    """Clear what was computed with earlier weights and is not in use.

    Image embeddings are cleared in the scheduler and in the workers, which must agree on what is cached. If the engine
    is idle, KV prefixes are cleared, too.
    """
    core = llm.llm_engine.engine_core.engine_core
    # Not `LLMEngine.reset_encoder_cache`, which does the same, but warns while there are requests.
    core.scheduler.reset_encoder_cache()
    core.model_executor.reset_encoder_cache()
    if idle:
        llm.reset_prefix_cache()


def takes_request_seeds() -> bool:
    """Whether requests can have a seed: on the CPU, a seed fails when a prefill is split into chunks."""
    return torch.cuda.is_available()


def partly_prefilled(llm: LLM) -> list[str]:
    """Ids of the requests of which a part of the prompt is computed, for at least one completion."""
    return list(
        dict.fromkeys(
            key for (key, _), core in _core_requests(llm) if 0 < core.num_computed_tokens < core.num_prompt_tokens
        )
    )


def num_generated_tokens(llm: LLM) -> dict[tuple[str, int], int]:
    """Tokens generated so far for each in-flight completion, keyed by (request id, completion index).

    With asynchronous scheduling, these include the token that a step already started will yield.
    """
    return {key: core.num_output_tokens + core.num_output_placeholders for key, core in _core_requests(llm)}


def _core_requests(llm: LLM) -> Iterator[tuple[tuple[str, int], Any]]:
    """(request id, completion index) and scheduler state of every in-flight completion."""
    requests = llm.llm_engine.engine_core.engine_core.scheduler.requests
    for request_id, state in llm.llm_engine.output_processor.request_states.items():
        parent = state.parent_req
        key = parent.external_req_id if parent is not None else state.external_req_id
        yield (key, state.request_index), requests[request_id]
