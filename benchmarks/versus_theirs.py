"""TRL's side of `benchmarks.versus_trl`: GRPOTrainer with the prompts, images and settings of a configuration."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import torch
from transformers import PrinterCallback, TrainerCallback, TrainerControl

from benchmarks.versus_ours import check_lengths, text_reward
from geovlm_ray.config import Config, load_config
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.data.sampler import PromptSampler
from geovlm_ray.model.loading import load_processor
from geovlm_ray.model.prompts import PromptEncoder, banned_token_ids
from geovlm_ray.training.preflight import Ready, prepare

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin
    from trl import GRPOTrainer

BATCHES = 8
"""Batches of prompts of the speed benchmark, prepared before the first step and then repeated."""
Reward = Callable[..., list[float]]
"""TRL's reward function: keyword arguments ``completions``, ``completion_ids`` and the columns of the data."""


def serve(pipe: Connection, recipe: str, overrides: list[str], rows: int, threads: int) -> None:
    """Serve a `Contender`: a request is one step, the response is samples/s. ``rows`` is TRL's micro-batch size."""
    silence_third_party_logs()
    torch.set_num_threads(threads)
    config = load_config(recipe, overrides)

    def reward(completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        check_lengths([len(ids) for ids in completion_ids], config.rollout.max_tokens)
        return [text_reward(messages[0]["content"]) for messages in completions]

    trainer = make_trainer(config, prepare(config), rows, reward, batches=BATCHES, endless=True)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(StepOnRequest(pipe, config.rollout.prompts_per_step * config.rollout.group_size))
    trainer.train()


class StepOnRequest(TrainerCallback):
    """Makes the trainer take one step per request."""

    def __init__(self, pipe: Connection, samples: int) -> None:
        self.pipe = pipe
        self.samples = samples
        self.begun = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """Send the rate of the finished step, and wait for the next request."""
        self.pipe.send(self.samples / (time.perf_counter() - self.begun))
        control.should_training_stop = self.pipe.recv() is None
        self.begun = time.perf_counter()


def make_trainer(
    config: Config, ready: Ready, rows: int, reward: Reward, *, batches: int, endless: bool = False
) -> GRPOTrainer:
    """The trainer with the settings of the configuration, and otherwise those that are fastest.

    These are fused AdamW and the fastest micro-batch size, ``rows``; on GPUs also bf16 and vLLM in the same process.
    The data are the first ``batches`` batches of prompts. If ``endless``, the end-of-sequence token is never sampled.
    """
    from trl import GRPOConfig, GRPOTrainer

    processor = load_processor(ready.model)
    processor.tokenizer.padding_side = "left"
    processor.tokenizer.eos_token = "<|im_end|>"
    banned = banned_token_ids(processor, len(processor.tokenizer))
    rollout, learner = config.rollout, config.learner
    on_gpu = torch.cuda.is_available()
    end = processor.tokenizer.eos_token_id
    if on_gpu:
        # Options of vLLM; it cannot suppress all special tokens.
        generation: dict[str, Any] = {"ignore_eos": endless}
    else:
        generation = {"suppress_tokens": [*banned, *([end] if endless else [])]}
    arguments = GRPOConfig(
        output_dir=tempfile.gettempdir(),
        max_steps=10_000,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=rollout.prompts_per_step * rollout.group_size // rows,
        num_generations=rollout.group_size,
        max_completion_length=rollout.max_tokens,
        temperature=rollout.temperature,
        generation_kwargs=generation,
        loss_type="grpo",
        beta=learner.kl_beta,
        learning_rate=learner.lr,
        lr_scheduler_type="constant",
        adam_beta1=learner.beta1,
        adam_beta2=learner.beta2,
        weight_decay=learner.weight_decay,
        max_grad_norm=learner.max_grad_norm,
        optim="adamw_torch_fused",
        use_cpu=not on_gpu,
        bf16=on_gpu,
        gradient_checkpointing=learner.gradient_checkpointing,
        use_vllm=on_gpu,
        vllm_mode="colocate",
        vllm_gpu_memory_utilization=rollout.gpu_memory_utilization,
        shuffle_dataset=False,
        model_init_kwargs={"dtype": config.model.dtype, "attn_implementation": "sdpa"},
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )

    data = make_data(config, ready, processor, batches)
    return GRPOTrainer(str(ready.model), reward, arguments, data, processing_class=processor)


def make_data(config: Config, ready: Ready, processor: ProcessorMixin, batches: int) -> Dataset:
    """The first batches of geovlm_ray's sampler: prompts, images resized to model inputs, index of each example."""
    from datasets import Dataset

    encoder = PromptEncoder(processor, config.prompt)
    prompts = PromptSampler(ready.stream, config.data, config.rollout.prompts_per_step)
    examples = [prompt.example for step in range(batches) for prompt in prompts.batch(step)]
    return Dataset.from_list(
        [
            {"prompt": [{"role": "user", "content": e.question}], "images": encoder.images(e), "index": i}
            for i, e in enumerate(examples)
        ]
    )
