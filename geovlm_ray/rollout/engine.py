"""One vLLM engine that draws groups of completions and takes new weights."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from geovlm_ray.errors import RunError
from geovlm_ray.policy.prompts import PromptEncoder, banned_token_ids
from geovlm_ray.rollout import vllm_compat
from geovlm_ray.rollout.config import RolloutConfig
from geovlm_ray.schema import Prompt, Sample, SampleGroup
from geovlm_ray.sync.update import WeightUpdate


class Engine:
    """A vLLM engine in this process, with the version of the weights it holds."""

    def __init__(
        self,
        model_path: Path,
        encoder: PromptEncoder,
        config: RolloutConfig,
        *,
        dtype: str = "float32",
        lora_rank: int = 0,
        seed: int = 0,
    ) -> None:
        vllm_compat.prepare_environment(config.kv_cache_gb)
        from vllm import LLM

        self.encoder = encoder
        self.config = config
        self.seed = seed
        self.version = 0
        self._adapter: Any = None
        self._adapter_dir = tempfile.TemporaryDirectory(prefix="geovlm-adapter-")
        lora = {"enable_lora": True, "max_lora_rank": max(8, lora_rank), "max_loras": 1} if lora_rank else {}
        arguments = {
            "enforce_eager": config.enforce_eager,
            **vllm_compat.backend_args(config.kv_cache_gb, config.gpu_memory_utilization),
            **lora,
        }
        try:
            self.llm = LLM(
                model=str(model_path),
                dtype=dtype,
                seed=seed,
                max_model_len=config.max_model_len,
                limit_mm_per_prompt={"image": 8, "video": 0},
                logprobs_mode="processed_logprobs",
                enable_prefix_caching=True,
                use_tqdm_on_load=False,
                **arguments,
            )
        except (ValueError, RuntimeError, MemoryError) as error:
            raise RunError(f"the vLLM engine for {model_path} did not start: {' '.join(str(error).split())}") from error
        vocabulary = self.llm.llm_engine.model_config.get_vocab_size()
        banned = set(banned_token_ids(encoder.processor, vocabulary))
        self._allowed = [i for i in range(vocabulary) if i not in banned]

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        group_size: int | None = None,
        max_tokens: int | None = None,
        greedy: bool = False,
    ) -> list[SampleGroup]:
        """Draw ``group_size`` completions of each prompt, with their log-probs, in the order of the prompts.

        The draws depend on the engine's seed, the prompts and the weights alone, so a run that is resumed draws
        what it would have drawn.
        """
        # Seeds of single requests fail on vLLM's CPU back-end as soon as a prefill is cut into chunks.
        torch.manual_seed(draw_seed(self.seed, prompts[0].group_id))
        params = self.sampling(group_size, max_tokens, greedy)
        outputs = self.llm.generate(self.inputs(prompts), params, use_tqdm=False, lora_request=self._adapter)
        return [
            SampleGroup(prompt, tuple(self._sample(completion) for completion in output.outputs))
            for prompt, output in zip(prompts, outputs, strict=True)
        ]

    def update_weights(self, update: WeightUpdate) -> int:
        """Take a version of the weights and return its number; nothing computed with earlier ones is kept."""
        tensors = update.tensors()
        if update.adapter is None:
            vllm_compat.load_weights(self.llm, tensors.items())
        else:
            self._take_adapter(update, tensors)
        vllm_compat.reset_caches(self.llm)
        self.version = update.version
        return self.version

    def _take_adapter(self, update: WeightUpdate, tensors: dict) -> None:
        from vllm.lora.request import LoRARequest

        folder = Path(self._adapter_dir.name) / f"version-{update.version}"
        folder.mkdir(exist_ok=True)
        save_file(tensors, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(update.adapter))
        if self._adapter is not None:
            self.llm.llm_engine.remove_lora(self._adapter.lora_int_id)
        # vLLM numbers adapters from 1, and the first version is 0.
        self._adapter = LoRARequest(f"version-{update.version}", update.version + 1, str(folder))
        self.llm.llm_engine.add_lora(self._adapter)

    def inputs(self, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Prompts and their images in the form that vLLM takes."""
        return [
            {"prompt": self.encoder.text(p.example), "multi_modal_data": {"image": self.encoder.images(p.example)}}
            for p in prompts
        ]

    def sampling(self, group_size: int | None = None, max_tokens: int | None = None, greedy: bool = False) -> Any:
        """vLLM's sampling parameters; None stands for the configuration's value."""
        from vllm import SamplingParams

        return SamplingParams(
            n=1 if greedy else group_size or self.config.group_size,
            temperature=0.0 if greedy else self.config.temperature,
            max_tokens=max_tokens or self.config.max_tokens,
            logprobs=0,
            allowed_token_ids=self._allowed,
            skip_special_tokens=True,
        )

    def _sample(self, completion: Any) -> Sample:
        ids = tuple(completion.token_ids)
        logprobs = tuple(step[i].logprob for i, step in zip(ids, completion.logprobs, strict=True))
        return Sample(ids, logprobs, completion.text, completion.finish_reason or "", self.version)


def draw_seed(seed: int, group_id: int) -> int:
    """The seed of a batch that begins with a group, of 31 bits."""
    digest = hashlib.blake2b(f"{seed}:{group_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 2**31
