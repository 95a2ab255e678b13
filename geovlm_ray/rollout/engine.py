"""A vLLM engine that samples groups of completions and accepts weight updates."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import tempfile
import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import xxhash
from PIL import Image
from safetensors.torch import save_file

from geovlm_ray.core.errors import DataError, RunError
from geovlm_ray.core.schema import Prompt, Sample, SampleGroup
from geovlm_ray.model.prompts import PromptEncoder
from geovlm_ray.rollout import vllm_compat
from geovlm_ray.rollout.config import RolloutConfig
from geovlm_ray.rollout.sampling import banned_token_bias, sampling_params, with_seed
from geovlm_ray.transport.base import Transport, WeightUpdate, WorkerUpdate, transport_errors

log = logging.getLogger(__name__)


@dataclass
class _Request:
    """A prompt in the engine, rendered for vLLM.

    ``version`` is that of its first tokens; ``weight_updates`` holds those of each completion, by its index.
    """

    prompt: Prompt
    params: Any
    inputs: dict[str, Any]
    version: int = 0
    weight_updates: dict[int, list[tuple[int, int]]] = field(default_factory=dict)


@dataclass
class _Stream:
    """Prompts of a call of `Engine.stream`: those that are being rendered, the keys of those in the engine, and groups.

    ``rejected`` are the groups of prompts that cannot be shown.
    """

    entering: deque[tuple[Prompt, Future[_Request]]]
    pending: list[str] = field(default_factory=list)
    rejected: list[SampleGroup] = field(default_factory=list)


class Engine:
    """An in-process vLLM engine and its weight version."""

    def __init__(
        self,
        model_path: Path,
        encoder: PromptEncoder,
        config: RolloutConfig,
        *,
        transport: Transport,
        dtype: str = "float32",
        fp32_head: bool = False,
        lora_rank: int = 0,
        sleep_level: int = 0,
        seed: int = 0,
    ) -> None:
        vllm_compat.prepare_environment(config.kv_cache_gb, config.tensor_parallel)
        from vllm import LLM

        self.encoder, self.config = encoder, config
        self.transport = transport
        self.seed = seed
        self.version = 0
        self._lock = threading.RLock()
        self._pending_lock = threading.Lock()
        self._pending_weights: WeightUpdate | WorkerUpdate | None = None
        self._keys = itertools.count()
        self._preparer = ThreadPoolExecutor(1)
        self._finished: dict[str, Any] = {}
        self._requests: dict[str, _Request] = {}
        self._streams: list[_Stream] = []
        self._adapter: Any = None
        self._sleep_level, self._asleep = sleep_level, False
        arguments = {
            "enforce_eager": config.enforce_eager,
            **vllm_compat.backend_args(config.kv_cache_gb, config.gpu_memory_utilization),
            **vllm_compat.lora_args(lora_rank),
            **vllm_compat.transfer_args(transport.vllm_backend),
            **vllm_compat.sleep_args(sleep_level),
            **vllm_compat.parallel_args(config.tensor_parallel),
            **({"hf_overrides": {"head_dtype": "float32"}} if fp32_head else {}),
        }
        try:
            self.llm = LLM(
                model=str(model_path),
                dtype=dtype,
                seed=seed,
                max_model_len=config.max_model_len,
                limit_mm_per_prompt={"image": encoder.max_images_per_prompt, "video": 0},
                logprobs_mode="processed_logprobs",
                enable_prefix_caching=True,
                # Images are seldom repeated, and vLLM's cache is not made for threads.
                mm_processor_cache_gb=0,
                use_tqdm_on_load=False,
                **arguments,
            )
        except (ValueError, RuntimeError, MemoryError) as error:
            raise RunError(f"the vLLM engine for {model_path} did not start: {' '.join(str(error).split())}") from error
        vllm_compat.settle(self.llm)
        self._gpu_stream = torch.cuda.current_stream() if torch.cuda.is_available() else None
        self._logit_bias = banned_token_bias(encoder.processor, self.llm.llm_engine.model_config.get_vocab_size())
        seeded = "group" if vllm_compat.takes_request_seeds() else "batch"
        log.info("vLLM %s; completions are drawn with a seed for each %s", vllm_compat.version(), seeded)

    def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
        """Sample completions of all prompts; returns groups in prompt order. ``sampling`` is as in `stream`."""
        groups = {group.group_id: group for finished in self.stream(prompts, **sampling) for group in finished}
        return [groups[prompt.group_id] for prompt in prompts]

    def stream(
        self,
        prompts: Sequence[Prompt],
        *,
        group_size: int | None = None,
        max_tokens: int | None = None,
        greedy: bool = False,
    ) -> Iterator[list[SampleGroup]]:
        """Sample ``group_size`` completions per prompt, with log-probs; yields groups as they complete.

        A prompt that cannot be rendered or exceeds ``max_model_len`` gives a group with a ``problem``.

        Several calls may be iterated in turns or by several threads; their prompts share the engine's batches. With one
        call at a time, completions depend only on the seed, the prompts and the weights, so a resumed run reproduces
        them.
        """
        params = self.sampling(group_size, max_tokens, greedy)
        seeded = self.seeded(prompts, params)
        jobs = zip(prompts, seeded, strict=True)
        stream = _Stream(
            deque((prompt, self._preparer.submit(self._prepare, prompt, params)) for prompt, params in jobs)
        )
        with self._lock:
            self._streams.append(stream)
        return self._groups(stream, wait_for_all=not greedy and not vllm_compat.takes_request_seeds())

    def _groups(self, stream: _Stream, *, wait_for_all: bool) -> Iterator[list[SampleGroup]]:
        """Run the engine, and yield the groups of a stream; the prompts of other streams enter it too.

        ``wait_for_all``: draws depend on the composition of the engine's steps, so all prompts must enter at once.
        """
        try:
            if wait_for_all:
                wait([future for _, future in stream.entering])
            while stream.entering or stream.pending or stream.rejected:
                if not stream.pending and stream.entering:
                    wait([stream.entering[0][1]])
                with self._lock:
                    self._load_pending_weights()
                    for other in self._streams:
                        self._enter(other)
                    if stream.pending and not any(key in self._finished for key in stream.pending):
                        self._step()
                    groups = [*stream.rejected, *(self._group(key) for key in stream.pending if key in self._finished)]
                    stream.rejected.clear()
                    stream.pending = [key for key in stream.pending if key in self._requests]
                if groups:
                    yield groups
        finally:
            for _, future in stream.entering:
                future.cancel()
            with self._lock:
                self._streams.remove(stream)
                self._abort(stream.pending)

    def _enter(self, stream: _Stream) -> None:
        """Give the prompts of a stream that are rendered to the engine."""
        while stream.entering and stream.entering[0][1].done():
            prompt, future = stream.entering.popleft()
            key = str(next(self._keys))
            try:
                self._add(key, future.result())
            except DataError as error:
                stream.rejected.append(SampleGroup(prompt, (), str(error)))
            else:
                stream.pending.append(key)

    def sleep(self) -> None:
        """Give back the GPU memory of weights and KV cache, until the next weights arrive.

        Raises:
            RunError: completions are being sampled.
        """
        with self._lock:
            if self._requests:
                raise RunError(f"an engine was told to sleep while it samples {len(self._requests)} prompts")
            freed = vllm_compat.sleep(self.llm, self._sleep_level)
            self._asleep = True
        log.info("engine sleeps; GPU memory given back: %.2f GiB", freed / 2**30)

    def endpoint(self, host: str) -> Any:
        """What the learner's transport needs to reach this engine, on a node with the address ``host``."""
        devices = vllm_compat.call_workers(self.llm, "transfer_device") if self.transport.vllm_backend else []
        return self.transport.endpoint(host, devices)

    def receive(self, chunk: Any) -> int:
        """Accept one chunk of a weight version, and load the version once it is complete; returns the current version.

        In-flight completions continue with the new weights and record the switch in ``weight_updates``. If there are
        none, all caches are reset.

        Raises:
            RunError: the chunk is corrupt, or belongs to an older version than the one being received.
        """
        vllm_compat.adopt_number_of_threads()
        with transport_errors(self.transport, "receive weights"):
            update = self.transport.receive(chunk)
            if not isinstance(update, WeightUpdate | WorkerUpdate | None):
                raise TypeError(f"expected a WeightUpdate, a WorkerUpdate or None from receive, found {update!r}")
        if update is not None:
            with self._pending_lock:
                self._pending_weights = update
            with self._lock:
                self._load_pending_weights()
        return self.version

    def _prepare(self, prompt: Prompt, params: Any) -> _Request:
        """Render a prompt and process its images; runs beside the engine."""
        inputs = self._inputs(prompt)
        with self._rejected_as_data_error(prompt):
            return _Request(prompt, params, vllm_compat.prepare_input(self.llm, inputs))

    def _add(self, key: str, request: _Request) -> None:
        if self._asleep:
            raise RunError("an engine that sleeps was given a prompt, before new weights")
        # The version in this key prevents reuse of KV prefixes of other weights.
        request.inputs["cache_salt"] = str(self.version)
        with self._rejected_as_data_error(request.prompt):
            self.llm.llm_engine.add_request(key, request.inputs, request.params, lora_request=self._adapter)
        vllm_compat.keep_sampled_logprobs_only(self.llm, request.params.n)
        self._requests[key] = replace(request, version=self.version)

    @contextmanager
    def _rejected_as_data_error(self, prompt: Prompt) -> Iterator[None]:
        try:
            yield
        except vllm_compat.rejection_errors() as error:
            raise DataError(
                f"record {prompt.example.id!r}: expected a prompt that fits rollout.max_model_len="
                f"{self.config.max_model_len}, found: {' '.join(str(error).split())}"
            ) from error

    def _abort(self, keys: Collection[str]) -> list[_Request]:
        self.llm.llm_engine.abort_request(list(keys))
        for key in keys:
            self._finished.pop(key, None)
        return [self._requests.pop(key) for key in keys]

    def _step(self) -> None:
        """Run one engine step for all requests; finished outputs are stored for the streams that wait for them."""
        # Any thread may step the engine; a thread of its own would get another stream from vLLM.
        with torch.cuda.stream(self._gpu_stream):
            for output in self.llm.llm_engine.step():
                if output.finished:
                    self._finished[output.request_id] = output

    def _group(self, key: str) -> SampleGroup:
        request = self._requests.pop(key)
        samples = tuple(self._sample(request, completion) for completion in self._finished.pop(key).outputs)
        return SampleGroup(request.prompt, samples)

    def _load_pending_weights(self) -> None:
        """Load the weight version that is complete but not loaded yet, if any; called between engine steps.

        A prompt of which the earlier weights have computed a part starts again.
        """
        with self._pending_lock:
            update, self._pending_weights = self._pending_weights, None
        if update is not None:
            with vllm_compat.alone_on_gpu(self._gpu_stream):
                self._load(update)

    def _load(self, update: WeightUpdate | WorkerUpdate) -> None:
        keys = vllm_compat.partly_prefilled(self.llm)
        restarting = dict(zip(keys, self._abort(keys), strict=True))
        for (key, index), num_tokens in vllm_compat.num_generated_tokens(self.llm).items():
            self._requests[key].weight_updates.setdefault(index, []).append((num_tokens, update.version))
        if self._asleep:
            vllm_compat.wake_up(self.llm, "weights")
        with transport_errors(self.transport, f"deliver version {update.version} as the engine loads it"):
            if isinstance(update, WorkerUpdate):
                update.load(partial(vllm_compat.call_workers, self.llm))
                vllm_compat.finish_loading(self.llm)
            elif update.adapter is None:
                vllm_compat.load_weights(self.llm, update.tensors)
            else:
                self._load_adapter(update.version, update.adapter, dict(update.tensors))
        if self._asleep:
            vllm_compat.wake_up(self.llm, "kv_cache")
            self._asleep = False
        self.version = update.version
        vllm_compat.reset_caches(self.llm, idle=not self._requests)
        for key, request in restarting.items():
            self._add(key, replace(request, weight_updates={}))

    def _load_adapter(self, version: int, adapter: Mapping[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        from vllm.lora.request import LoRARequest

        name = f"version-{version}"
        with tempfile.TemporaryDirectory(prefix="geovlm-adapter-") as folder:
            save_file(tensors, Path(folder) / "adapter_model.safetensors")
            (Path(folder) / "adapter_config.json").write_text(json.dumps(adapter))
            self.llm.llm_engine.add_lora(LoRARequest(name, 1, folder, load_inplace=True))
        # All versions share one adapter ID, so in-flight requests use the new weights; the name differs, which keeps
        # their prefix-cache entries separate.
        # Requests omit `load_inplace`, with which vLLM would read the adapter from disk at every step.
        self._adapter = LoRARequest(name, 1, folder)

    def inputs(self, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Prompts and their images in vLLM's input format."""
        return [self._inputs(prompt) for prompt in prompts]

    def _inputs(self, prompt: Prompt) -> dict[str, Any]:
        images = self.encoder.images(prompt.example)
        return {
            "prompt": self.encoder.text(prompt.example) + prompt.prefill,
            "multi_modal_data": {"image": images},
            "multi_modal_uuids": {"image": [image_identity(image) for image in images]},
        }

    def sampling(self, group_size: int | None = None, max_tokens: int | None = None, greedy: bool = False) -> Any:
        """vLLM sampling parameters; None selects the configured value."""
        return sampling_params(
            self.config, self._logit_bias, group_size=group_size, max_tokens=max_tokens, greedy=greedy
        )

    def seeded(self, prompts: Sequence[Prompt], params: Any) -> list[Any]:
        """Sampling parameters of each prompt of a batch, with the seed of its group unless they are greedy.

        Where vLLM takes no such seeds, seeds its random numbers for the whole batch.
        """
        if params.temperature == 0:
            return [params] * len(prompts)
        seeds = [random_seed(self.seed, prompt.group_id) for prompt in prompts]
        if vllm_compat.takes_request_seeds():
            return [with_seed(params, seed) for seed in seeds]
        torch.manual_seed(seeds[0])
        return [params] * len(seeds)

    def _sample(self, request: _Request, completion: Any) -> Sample:
        ids = tuple(completion.token_ids)
        updates = request.weight_updates.get(completion.index, ())
        return Sample(
            ids,
            tuple(completion.logprobs),
            request.prompt.prefill + self.encoder.processor.tokenizer.decode(ids, skip_special_tokens=True),
            completion.finish_reason or "",
            request.version,
            weight_updates=tuple((start, new) for start, new in updates if start < len(ids)),
        )


def image_identity(image: Image.Image) -> str:
    """What the engine's caches know an image by: its size and pixels, whichever file and settings it came from."""
    return f"{image.width}x{image.height} {xxhash.xxh3_128_hexdigest(image.tobytes())}"


def random_seed(seed: int, group_id: int) -> int:
    """A 31-bit seed for a group, or for the batch whose first group it is."""
    digest = hashlib.blake2b(f"{seed}:{group_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 2**31
